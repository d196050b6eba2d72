-- Moves jobs of the embedded queue to the stream, once: their numbers tell what is there already.
-- KEYS: the stream, the producers' markers. ARGV: the field, the number that the server must be at, the last number of
-- the jobs, and at last the jobs. Says the number that the server is at now.
local kind, wrong = stream_kind(KEYS[1])
if wrong then return wrong end
local at = redis.call('HGET', KEYS[2], ARGV[1]) or '0'
if at ~= ARGV[2] then return at end
for i = 4, #ARGV do redis.call('XADD', KEYS[1], '*', 'job', ARGV[i]) end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return ARGV[3]
