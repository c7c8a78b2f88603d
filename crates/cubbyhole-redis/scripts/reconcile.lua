-- Compares the index of a namespace with values, and repairs the index. An orphaned value is a
-- value that is not consistently indexed and has no metadata of a live entry.
--
-- KEYS: keys, metas, expiries, the values. ARGV: the action on orphaned values ('list', 'register'
-- or 'remove'; 'check' does not repair the index either), the keys; for 'register', a version for
-- each. Returns three numbers for each key: the finding, and for an orphaned value its length and
-- its expiry (0 for never). The findings:
local CONSISTENT, ORPHANED, MISSING_VALUE, WRONG_EXPIRY, NOT_A_STRING, UNLISTED = 0, 1, 2, 3, 4, 5

local call = redis.call
local mode, keys, metas, expiries, count = ARGV[1], KEYS[1], KEYS[2], KEYS[3], #KEYS - 3
local members = { unpack(ARGV, 2, count + 1) }
local time = now()
local found_metas = call('HMGET', metas, unpack(members))
local listed = call('ZMSCORE', keys, unpack(members))
local scores = call('ZMSCORE', expiries, unpack(members))
local answer, orphans = {}, {}
-- The arguments of the writes.
local new_metas, new_keys, new_expiries, restored_keys = {}, {}, {}, {}
local no_values, no_members, never = {}, {}, {}

local function set_instant(member, expires)
  if expires == 0 then
    never[#never + 1] = member
  else
    new_expiries[#new_expiries + 1] = digits(expires)
    new_expiries[#new_expiries + 1] = member
  end
end

-- Returns the finding for a key without a value.
local function judge_missing(i, meta)
  if not meta then
    return (listed[i] or scores[i] or found_metas[i]) and MISSING_VALUE or CONSISTENT
  end
  if is_live(meta, time) then
    return MISSING_VALUE
  end
  -- The value has expired. A sweep finds the entry by its expiry.
  if tonumber(scores[i] or 0) == expires_at(meta) then
    return CONSISTENT
  end
  set_instant(members[i], expires_at(meta))
  return WRONG_EXPIRY
end

-- Returns the finding for a key with a value of this length, and the expiry of that value.
local function judge_value(i, meta, length)
  if meta and listed[i] then
    if tonumber(scores[i] or 0) == expires_at(meta) then
      return CONSISTENT, 0
    end
    set_instant(members[i], expires_at(meta))
    return WRONG_EXPIRY, 0
  end
  if is_live(meta, time) then
    -- Only the sorted set of keys lost this entry. A put would not add it again, because the
    -- metadata exists.
    restored_keys[#restored_keys + 1] = 0
    restored_keys[#restored_keys + 1] = members[i]
    if tonumber(scores[i] or 0) ~= expires_at(meta) then
      set_instant(members[i], expires_at(meta))
    end
    return UNLISTED, 0
  end
  -- Another program may have set an expiry past the year 9999.
  local expires = math.min(call('PEXPIRETIME', KEYS[i + 3]) + 1, LAST_INSTANT)
  if expires ~= 0 and expires <= time then
    return CONSISTENT, 0
  end
  if mode == 'register' then
    local version = ARGV[count + 1 + i]
    new_metas[#new_metas + 1] = members[i]
    new_metas[#new_metas + 1] = version .. struct.pack('>I6I6I6I4', time, time, expires, length)
    new_keys[#new_keys + 1] = 0
    new_keys[#new_keys + 1] = members[i]
    set_instant(members[i], expires)
  elseif mode == 'remove' then
    no_values[#no_values + 1] = KEYS[i + 3]
    no_members[#no_members + 1] = members[i]
  end
  return ORPHANED, expires
end

for i = 1, count do
  local value = KEYS[i + 3]
  -- Metadata of another length counts as lost.
  local meta = found_metas[i] and is_readable(found_metas[i]) and found_metas[i]
  local length = redis.pcall('STRLEN', value)
  local found, expires
  if type(length) ~= 'number' then
    if not string.find(length.err, 'WRONGTYPE', 1, true) then
      return length
    end
    found, length = NOT_A_STRING, 0
  elseif length > 0 or call('EXISTS', value) == 1 then
    found, expires = judge_value(i, meta, length)
  else
    found = judge_missing(i, meta)
    if found == MISSING_VALUE then
      no_members[#no_members + 1] = members[i]
    end
  end
  answer[3 * i - 2] = found
  answer[3 * i - 1] = found == ORPHANED and length or 0
  answer[3 * i] = expires or 0
end

if mode == 'check' then
  return answer
end
if #new_keys > 0 and not call('ZSCORE', expiries, MARKER) then
  return unregistered(time, 0)
end
-- Removals come last, one command for each key, because they may empty the key: see the prelude.
if #new_metas > 0 then
  call('HSET', metas, unpack(new_metas))
  call('ZADD', keys, unpack(new_keys))
end
if #restored_keys > 0 then
  call('ZADD', keys, unpack(restored_keys))
end
if #new_expiries > 0 then
  call('ZADD', expiries, unpack(new_expiries))
end
if #no_values > 0 then
  call('UNLINK', unpack(no_values))
end
if #no_members > 0 then
  call('ZREM', keys, unpack(no_members))
  call('HDEL', metas, unpack(no_members))
end
for i = 1, #no_members do
  never[#never + 1] = no_members[i]
end
if #never > 0 then
  call('ZREM', expiries, unpack(never))
end
return answer
