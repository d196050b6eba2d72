-- What the other scripts ask of a stream; it stands before each of them.

-- `stream` or `none`; for whatever else lies under that name nothing, and the error.
local function stream_kind(stream)
    local kind = redis.call('TYPE', stream)['ok']
    if kind == 'stream' or kind == 'none' then return kind end
    return nil, redis.error_reply('WRONGTYPE the key ' .. stream .. ' holds a ' .. kind .. ', not a stream')
end

-- Whether it never held an entry. Somebody may have made it for a group; one that was trimmed knows its last entry.
local function is_empty(stream, kind)
    if kind == 'none' then return true end
    if redis.call('XLEN', stream) > 0 then return false end
    local facts = redis.call('XINFO', 'STREAM', stream)
    for i = 1, #facts, 2 do
        if facts[i] == 'last-generated-id' then return facts[i + 1] == '0-0' end
    end
end

-- Whether it never held the entry that a marker speaks of: a failover in the middle of a slot's move may leave the markers
-- without their stream.
local function is_emptied(stream, kind, last)
    return last ~= '0-0' and last ~= '-' and is_empty(stream, kind)
end
