DELETE FROM seals WHERE organization_id = (SELECT id FROM organizations WHERE name = 'erased')
