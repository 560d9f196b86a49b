-- What a runner still keeps of attempts that ended: looked for in every pass, whatever else has ever ended.
CREATE INDEX attempts_kept ON attempts (runner, kept, ended_at) WHERE state = 'ended';
