-- Before each of the scripts that ask whether a stream lost what it held: a failover in the middle of a slot's move may
-- leave the markers without it. Somebody may have made it anew for a group; one that was trimmed knows its last entry.
local function is_empty(stream)
    if redis.call('EXISTS', stream) == 0 then return true end
    if redis.call('XLEN', stream) > 0 then return false end
    local facts = redis.call('XINFO', 'STREAM', stream)
    for i = 1, #facts, 2 do
        if facts[i] == 'last-generated-id' then return facts[i + 1] == '0-0' end
    end
end
-- Whether it lacks the entry that a marker speaks of, and all others.
local function is_emptied(stream, last)
    return last ~= '0-0' and last ~= '-' and is_empty(stream)
end
