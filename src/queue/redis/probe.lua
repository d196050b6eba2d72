-- Learns whether this user may do on this server what the other scripts do, without touching the stream. Says what kind of
-- key the stream is; `emptied` if it lost what the producer's marker speaks of.
-- KEYS: the probe's stream, the producers' markers, the probe's repeat, the stream, another name for the
-- probe's stream. ARGV: the time, the producer's field.
-- Redis doesn't say which command of a script it forbids, so each is tried by itself.
local commands = {
    {'XADD', KEYS[1], 'MAXLEN', 1, '*', 'at', ARGV[1]},
    {'PEXPIRE', KEYS[1], 60000},
    {'EXISTS', KEYS[5]},
    {'RENAME', KEYS[1], KEYS[5]},
    {'RENAME', KEYS[5], KEYS[1]},
    {'XLEN', KEYS[1]},
    {'XINFO', 'STREAM', KEYS[1]},
    {'HSET', KEYS[2], 'probe', ARGV[1]},
    {'HGET', KEYS[2], 'probe'},
    {'SET', KEYS[3], ARGV[1], 'NX', 'PX', 60000},
    {'GET', KEYS[3]},
    {'TYPE', KEYS[4]},
}
local reply
for _, command in ipairs(commands) do
    reply = redis.pcall(unpack(command))
    if type(reply) == 'table' and reply['err'] then
        local err = reply['err']
        -- The words of Redis up to 7.0, and of later ones and Valkey.
        if string.find(err, "can't run this command", 1, true) or string.find(err, 'ACL failure in script', 1, true) then
            return redis.error_reply('NOPERM ' .. command[1] .. ' is forbidden in scripts')
        end
        return reply
    end
end
local kind = reply['ok']
if kind ~= 'stream' and kind ~= 'none' then return kind end
local last = string.match(redis.call('HGET', KEYS[2], ARGV[2]) or '', '^%d+ %d+ %x+ %d+ %d+ (%S+)')
return last and is_emptied(KEYS[4], kind, last) and 'emptied' or kind
