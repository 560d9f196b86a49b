-- What makes each kind of leak, and what mends it: a name, a wrong, and its remedy.

-- superseded_line
UPDATE usage_events SET state = 'superseded' WHERE state = 'settled';
UPDATE usage_events SET state = 'settled' WHERE state = 'superseded';

-- time_beyond_hold
UPDATE attempt_intervals SET close_reason = 'unpaid' WHERE close_reason = 'settled' AND attempt_id IN
             (SELECT id FROM attempts WHERE state = 'ended');
UPDATE attempt_intervals SET close_reason = 'settled' WHERE close_reason = 'unpaid';

-- time_not_charged
UPDATE charges SET quantity = quantity - 1 WHERE source LIKE 'job_%';
UPDATE charges SET quantity = quantity + 1 WHERE source LIKE 'job_%';

-- time_not_metered
UPDATE attempt_intervals SET attempt_id = 'x' || attempt_id;
UPDATE attempt_intervals SET attempt_id = SUBSTR(attempt_id, 2);

-- time_not_settled
UPDATE attempts SET alive_at = alive_at + 7200000000 WHERE state = 'running';
UPDATE attempts SET alive_at = alive_at - 7200000000 WHERE state = 'running';

-- running_unheld
UPDATE holds SET captured = captured + 900000000000 WHERE state = 'open';
UPDATE holds SET captured = captured - 900000000000 WHERE state = 'open';

-- lease_past_end
UPDATE leases SET ends_at = 1 WHERE state = 'active' AND ends_at IS NULL;
UPDATE leases SET ends_at = NULL WHERE ends_at = 1;

-- lost_slice
UPDATE gateways SET fence = fence + 1, started_at = started_at - 9000000000;
UPDATE gateways SET fence = fence - 1;

-- suspense
UPDATE account_names SET path = 'liabilities:customers:' || organization_id || ':suspense' WHERE path LIKE '%:available:promotional';
UPDATE account_names SET path = 'liabilities:customers:' || organization_id || ':available:promotional' WHERE path LIKE '%:suspense';

-- month_not_billed
INSERT INTO closed_months (organization_id, period, carry) SELECT id, '2025-12', 0 FROM organizations WHERE class = 'external';
DELETE FROM closed_months;

-- charges_not_invoiced
INSERT INTO closed_months (organization_id, period, billed_at, carry) SELECT id, '2026-03', 1773600000000000, 0
             FROM organizations WHERE class = 'external';
DELETE FROM closed_months;

-- device_without_price
UPDATE devices SET kind = 'gpu';
UPDATE devices SET kind = 'cpu';

-- lost_download
INSERT INTO downloads (id, organization_id, project_id, file_id, price_version, state, bytes, opened_at, ended_at)
             SELECT 'dl_x', organization_id, id, 'file_x', 'x', 'lost', 0, 1773600000000000, 1773600000000000 FROM projects LIMIT 1;
DELETE FROM downloads;

-- storage_behind
INSERT INTO storage_meters (project_id, organization_id, metered_until) SELECT id, organization_id, 1 FROM projects LIMIT 1;
DELETE FROM storage_meters;

-- file_not_metered
INSERT INTO files (id, organization_id, project_id, home, purpose, filename, bytes, content_hash, created_at)
             SELECT 'file_x', organization_id, id, 'home', 'user_data', 'x', 1000, '', 1 FROM projects LIMIT 1;
DELETE FROM files;

-- start_not_charged
UPDATE charges SET source = 'x' || source WHERE sku LIKE 'starts/%';
UPDATE charges SET source = SUBSTR(source, 2) WHERE sku LIKE 'starts/%';
