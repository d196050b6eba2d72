-- Appends one numbered batch to the stream, once.
-- KEYS: the stream, the producers' markers, the stream's name while it is open (see below), then the key of each job that
--       may be a repeat.
-- ARGV: the producer's field, epoch, nonce, number, time, the stream's limit (0: none), 1 to leave the stream open, how many
--       jobs may be repeats, for each of those its place in the batch, its id and its window in ms, and at last the jobs.
-- Lua hashes every byte that it is given, which costs Redis more than appending them. So a batch can be one transaction:
-- this script with its first job, which renames the stream if the batch is to be appended; an XADD NOMKSTREAM to that other
-- name for each further job, which does nothing where the script refused or failed; and a RENAMENX back.
-- A marker: "epoch number nonce prior-epoch prior-number last-entry time". The last entry is 0-0 before the first one, and -
-- behind a fence that found the stream emptied. Numbers are compared as numbers and stored as the strings that came in,
-- because Lua prints large ones in exponent form.
local marker = redis.call('HGET', KEYS[2], ARGV[1])
if not marker then return {'unknown'} end
local epoch, number, nonce, prior, last = string.match(marker, '^(%d+) (%d+) (%x+) (%d+ %d+) (%S+)')
local is_same = tonumber(ARGV[2]) == tonumber(epoch)
if tonumber(ARGV[2]) < tonumber(epoch) or (is_same and ARGV[3] ~= nonce) then return {'fenced'} end
if not is_same then return {'gap'} end
local kind, wrong = stream_kind(KEYS[1])
if wrong then return wrong end
if is_emptied(KEYS[1], kind, last) then return {'emptied'} end
if tonumber(ARGV[4]) <= tonumber(number) then return {'duplicate'} end
if tonumber(ARGV[4]) ~= tonumber(number) + 1 then return {'gap'} end
local limit = tonumber(ARGV[6])
if limit > 0 and redis.call('XLEN', KEYS[1]) >= limit then return {'full'} end
local stream = KEYS[1]
if ARGV[7] == '1' then
    stream = KEYS[3]
    if redis.call('EXISTS', stream) == 1 then
        return redis.error_reply('ERR the key ' .. stream .. ' is in the way; nothing but the gateway may write it')
    end
    if kind == 'stream' then redis.call('RENAME', KEYS[1], stream) end
end
local reply = {'appended'}
local repeats = {}
local jobs = 9 + 3 * tonumber(ARGV[8])
for i = 1, tonumber(ARGV[8]) do
    local at = 9 + 3 * (i - 1)
    if not redis.call('SET', KEYS[3 + i], ARGV[at + 1], 'NX', 'PX', ARGV[at + 2]) then
        local first = redis.call('GET', KEYS[3 + i])
        -- A job that marked the delivery itself comes again only because the stream lost it.
        if first ~= ARGV[at + 1] then
            repeats[jobs + tonumber(ARGV[at])] = true
            reply[#reply + 1] = ARGV[at]
            reply[#reply + 1] = first
        end
    end
end
for i = jobs, #ARGV do
    if not repeats[i] then last = redis.call('XADD', stream, '*', 'job', ARGV[i]) end
end
redis.call('HSET', KEYS[2], ARGV[1], table.concat({ARGV[2], ARGV[4], ARGV[3], prior, last, ARGV[5]}, ' '))
return reply
