-- What the other processes of a deployment have to notice: each number grows in the transaction of its change.
CREATE TABLE changes (subject TEXT PRIMARY KEY, number BIGINT NOT NULL);
INSERT INTO changes (subject, number) VALUES ('access', 1), ('prices', 1);
