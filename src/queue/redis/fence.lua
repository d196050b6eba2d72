-- Begins an epoch: from here on whatever comes late of an older one is refused.
-- KEYS: the stream, the producers' markers. ARGV: the producer's field, epoch, nonce, time.
-- Says the position of the last batch before the epoch, and whether the stream never held anything. A fence is no batch: the
-- position before an epoch in which nothing was appended is the position before that epoch's fence.
local kind = redis.call('TYPE', KEYS[1])['ok']
if kind ~= 'stream' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE the key ' .. KEYS[1] .. ' holds a ' .. kind .. ', not a stream')
end
-- A stream that was trimmed to nothing has held jobs.
local is_empty = 1
if kind == 'stream' then
    local facts = redis.call('XINFO', 'STREAM', KEYS[1])
    for i = 1, #facts, 2 do
        if facts[i] == 'last-generated-id' and facts[i + 1] ~= '0-0' then is_empty = 0 end
    end
end
local marker = redis.call('HGET', KEYS[2], ARGV[1])
local prior, last = '0 0', '0-0'
if marker then
    local epoch, number, nonce, before, entry = string.match(marker, '^(%d+) (%d+) (%x+) (%d+ %d+) (%S+)')
    prior, last = number == '1' and before or epoch .. ' ' .. number, entry
    if tonumber(ARGV[2]) < tonumber(epoch) then return {'fenced'} end
    if tonumber(ARGV[2]) == tonumber(epoch) then
        if ARGV[3] ~= nonce or number ~= '1' then return {'fenced'} end
        return {'begun', before, is_empty}
    end
end
redis.call('HSET', KEYS[2], ARGV[1], table.concat({ARGV[2], '1', ARGV[3], prior, last, ARGV[4]}, ' '))
return {'begun', prior, is_empty}
