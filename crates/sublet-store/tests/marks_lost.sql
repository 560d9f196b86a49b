DELETE FROM storage_meters
