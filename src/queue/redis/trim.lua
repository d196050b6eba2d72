-- Removes entries that nobody needs any more.
-- KEYS: the stream. ARGV: 1 if those go that every group has acknowledged, the age in ms from which on entries go
-- whether they were read or not (0: none), how many may go at once.
-- Says how many went; -1 if there is no stream. Without a group nothing is acknowledged.
if redis.call('TYPE', KEYS[1])['ok'] ~= 'stream' then return -1 end

-- Compares the digits, as numbers of this size lose some.
local function is_before(one, other)
    local ms, seq = string.match(one, '^(%d+)-(%d+)$')
    local other_ms, other_seq = string.match(other, '^(%d+)-(%d+)$')
    if ms ~= other_ms then return #ms < #other_ms or (#ms == #other_ms and ms < other_ms) end
    return #seq < #other_seq or (#seq == #other_seq and seq < other_seq)
end

local function behind(id)
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    if #seq > 15 then return id end
    return ms .. '-' .. string.format('%.0f', tonumber(seq) + 1)
end

-- Everything before it goes.
local first
if ARGV[1] == '1' then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
        local facts = {}
        for i = 1, #group, 2 do facts[group[i]] = group[i + 1] end
        local needed = behind(facts['last-delivered-id'])
        local pending = redis.call('XPENDING', KEYS[1], facts['name'])
        if pending[1] > 0 and is_before(pending[2], needed) then needed = pending[2] end
        if not first or is_before(needed, first) then first = needed end
    end
end
if tonumber(ARGV[2]) > 0 then
    local now = redis.call('TIME')
    local oldest = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) - tonumber(ARGV[2])
    oldest = string.format('%.0f-0', math.max(oldest, 0))
    if not first or is_before(first, oldest) then first = oldest end
end
if not first then return 0 end
-- Whole nodes of the stream first, some at a time; then the rest of one node.
local gone = redis.call('XTRIM', KEYS[1], 'MINID', '~', first, 'LIMIT', ARGV[3])
if gone == 0 then gone = redis.call('XTRIM', KEYS[1], 'MINID', first) end
return gone
