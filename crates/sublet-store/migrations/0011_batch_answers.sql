-- A line may ask for several answers: they run at once and are counted as such.
ALTER TABLE batch_lines ADD COLUMN answers BIGINT NOT NULL DEFAULT 1;
