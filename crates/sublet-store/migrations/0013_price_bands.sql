-- The band of a price by time of use that a charge and its line are in; empty outside of all bands.
ALTER TABLE charges ADD COLUMN band TEXT NOT NULL DEFAULT '';

CREATE TABLE charge_lines_by_band (
    organization_id TEXT NOT NULL, project_id TEXT NOT NULL, period TEXT NOT NULL, price_version TEXT NOT NULL,
    sku TEXT NOT NULL, band TEXT NOT NULL, quantity BIGINT NOT NULL, charged BIGINT NOT NULL,
    PRIMARY KEY (organization_id, project_id, period, price_version, sku, band)
);
INSERT INTO charge_lines_by_band (organization_id, project_id, period, price_version, sku, band, quantity, charged)
    SELECT organization_id, project_id, period, price_version, sku, '', quantity, charged FROM charge_lines;
DROP TABLE charge_lines;
ALTER TABLE charge_lines_by_band RENAME TO charge_lines;
