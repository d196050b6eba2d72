-- Appends one numbered batch to the stream, once.
-- KEYS: the stream, the producers' markers, then the key of each job that may be a repeat.
-- ARGV: the producer's field, epoch, nonce, number, time, the stream's limit (0: none), how many jobs may be repeats,
--       for each of those its place in the batch, its id and its window in ms, and at last the jobs.
-- A marker: "epoch number nonce prior-epoch prior-number last-entry time". Numbers are compared as numbers and stored
-- as the strings that came in, because Lua prints large ones in exponent form.
local marker = redis.call('HGET', KEYS[2], ARGV[1])
if not marker then return {'unknown'} end
local epoch, number, nonce, prior, last = string.match(marker, '^(%d+) (%d+) (%x+) (%d+ %d+) (%S+)')
local is_same = tonumber(ARGV[2]) == tonumber(epoch)
if tonumber(ARGV[2]) < tonumber(epoch) or (is_same and ARGV[3] ~= nonce) then return {'fenced'} end
if not is_same then return {'gap'} end
if tonumber(ARGV[4]) <= tonumber(number) then return {'duplicate'} end
if tonumber(ARGV[4]) ~= tonumber(number) + 1 then return {'gap'} end
local kind = redis.call('TYPE', KEYS[1])['ok']
if kind ~= 'stream' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE the key ' .. KEYS[1] .. ' holds a ' .. kind .. ', not a stream')
end
local limit = tonumber(ARGV[6])
if limit > 0 and redis.call('XLEN', KEYS[1]) >= limit then return {'full'} end
local reply = {'appended'}
local repeats = {}
local jobs = 8 + 3 * tonumber(ARGV[7])
for i = 1, tonumber(ARGV[7]) do
    local at = 8 + 3 * (i - 1)
    if not redis.call('SET', KEYS[2 + i], ARGV[at + 1], 'NX', 'PX', ARGV[at + 2]) then
        local place = tonumber(ARGV[at])
        repeats[jobs + place] = true
        reply[#reply + 1] = ARGV[at]
        reply[#reply + 1] = redis.call('GET', KEYS[2 + i])
    end
end
for i = jobs, #ARGV do
    if not repeats[i] then last = redis.call('XADD', KEYS[1], '*', 'job', ARGV[i]) end
end
redis.call('HSET', KEYS[2], ARGV[1], table.concat({ARGV[2], ARGV[4], ARGV[3], prior, last, ARGV[5]}, ' '))
return reply
