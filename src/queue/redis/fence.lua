-- Begins an epoch: from here on whatever comes late of an older one is refused.
-- KEYS: the stream, the producers' markers. ARGV: the producer's field, epoch, nonce, time.
-- Says the position of the last batch before the epoch, and whether nothing is there of this producer: where the stream lost
-- all, that position is the beginning. A fence is no batch: the position before an epoch in which nothing was appended is the
-- position before that epoch's fence.
local kind, wrong = stream_kind(KEYS[1])
if wrong then return wrong end
local lacks_all = is_empty(KEYS[1], kind)
local marker = redis.call('HGET', KEYS[2], ARGV[1])
local prior, last = '0 0', '0-0'
if marker then
    local epoch, number, nonce, before, entry = string.match(marker, '^(%d+) (%d+) (%x+) (%d+ %d+) (%S+)')
    if tonumber(ARGV[2]) < tonumber(epoch) then return {'fenced'} end
    local is_same = tonumber(ARGV[2]) == tonumber(epoch)
    if is_same and (ARGV[3] ~= nonce or number ~= '1') then return {'fenced'} end
    prior, last = number == '1' and before or epoch .. ' ' .. number, entry
    if last == '-' then lacks_all = true end
    -- Batches without a job leave no entry.
    if last == '0-0' and prior ~= '0 0' then lacks_all = false end
end
if lacks_all then prior = '0 0' end
-- Should the answer get lost, the next fence says the same, whatever others put there meanwhile.
if lacks_all and last ~= '0-0' then last = '-' end
redis.call('HSET', KEYS[2], ARGV[1], table.concat({ARGV[2], '1', ARGV[3], prior, last, ARGV[4]}, ' '))
return {'begun', prior, lacks_all and 1 or 0}
