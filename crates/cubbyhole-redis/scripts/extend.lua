-- Reads entries as of one instant, and extends the expiries of those that are due. It writes nothing
-- if none is due.
--
-- KEYS: metas, the values, expiries. ARGV: the limit in bytes, or '' to read no values; the expiry
-- to extend to, or ''; 'refresh' to restart idle TTLs, or ''; 'check' to write nothing, or ''; the
-- keys. Returns the number of entries that are due, and metadata and value for each key: see
-- read_entries.
local FIRST = 5
local time = now()
-- An invalid expiry is refused even if there is no entry.
local extended = instant_of(ARGV[2], time)
if not extended then
  return too_late(0)
end
local refresh = ARGV[3] == 'refresh'
local metas, expiries = KEYS[1], KEYS[#KEYS]

-- Returns the new expiry of a live entry, or nil if its expiry does not change.
local function due(meta)
  local current = expires_at(meta)
  if current == 0 then
    return nil
  end
  local new = math.max(current, extended)
  local idle = refresh and idle_ttl(meta)
  if idle then
    local refreshed = math.min(time + idle, LAST_INSTANT)
    -- A refresh is skipped while less than a tenth of the TTL has passed since the last one, so that
    -- reading does not become writing.
    local passed = refreshed - current
    if passed > 0 and passed * 10 >= idle then
      new = math.max(new, refreshed)
    end
  end
  return new > current and new or nil
end

local answer = read_entries(time, tonumber(ARGV[1]), FIRST)
local changed, new_metas, new_expiries, count = {}, {}, {}, 0
for i = 1, #KEYS - 2 do
  local key, meta = ARGV[FIRST + i - 1], answer[2 * i - 1]
  local expires = meta and due(meta)
  if expires then
    meta = with_expiry(meta, expires, idle_ttl(meta))
    answer[2 * i - 1] = meta
    -- A key may occur twice.
    if not changed[key] then
      changed[key] = true
      count = count + 1
      new_metas[2 * count - 1], new_metas[2 * count] = key, meta
      new_expiries[2 * count - 1], new_expiries[2 * count] = digits(expires), key
    end
  end
end
if count > 0 and ARGV[4] ~= 'check' then
  -- A key of the wrong type fails here, before the first write.
  redis.call('ZCARD', expiries)
  redis.call('HSET', metas, unpack(new_metas))
  redis.call('ZADD', expiries, unpack(new_expiries))
  for i = 1, #KEYS - 2 do
    local key = ARGV[FIRST + i - 1]
    if changed[key] then
      changed[key] = nil
      expire_value(KEYS[i + 1], expires_at(answer[2 * i - 1]), time)
    end
  end
end
return { count, answer }
