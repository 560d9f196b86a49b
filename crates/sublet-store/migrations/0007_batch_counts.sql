-- Counting the lines of a batch read their answers. This index has all that is counted.
CREATE INDEX batch_lines_counts
    ON batch_lines (batch_id, state, number, status_code, input_tokens, cached_input_tokens, output_tokens);
DROP INDEX batch_lines_state;
