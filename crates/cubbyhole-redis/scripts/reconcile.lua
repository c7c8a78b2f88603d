-- Compares keys of a namespace in its index with their values, and brings the index in line.
--
-- KEYS: keys, metas, expiries, the values. ARGV: the action on orphaned values, which are not in line
-- and have no meta data of a live entry ('check' changes nothing at all, 'list', 'register', 'remove'),
-- the keys, then, to register, a version for each. Answers three numbers for each key: the finding; for
-- an orphaned value, its length and its expiry (0 for never). The findings:
local IN_LINE, ORPHANED, WITHOUT_VALUE, OTHER_EXPIRY, NO_STRING, UNLISTED = 0, 1, 2, 3, 4, 5

local call = redis.call
local mode, keys, metas, expiries, count = ARGV[1], KEYS[1], KEYS[2], KEYS[3], #KEYS - 3
local members = { unpack(ARGV, 2, count + 1) }
local time = now()
local found_metas = call('HMGET', metas, unpack(members))
local listed = call('ZMSCORE', keys, unpack(members))
local scores = call('ZMSCORE', expiries, unpack(members))
local answer, orphans = {}, {}
-- Arguments of the writes.
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

-- The finding for a key that has no value.
local function judge_missing(i, meta)
  if not meta then
    return (listed[i] or scores[i] or found_metas[i]) and WITHOUT_VALUE or IN_LINE
  end
  if is_live(meta, time) then
    return WITHOUT_VALUE
  end
  -- The engine removed it at its instant, and a sweep finds it by that.
  if tonumber(scores[i] or 0) == expires_at(meta) then
    return IN_LINE
  end
  set_instant(members[i], expires_at(meta))
  return OTHER_EXPIRY
end

-- The finding for a key that has a value of this length, and the expiry of that value.
local function judge_value(i, meta, length)
  if meta and listed[i] then
    if tonumber(scores[i] or 0) == expires_at(meta) then
      return IN_LINE, 0
    end
    set_instant(members[i], expires_at(meta))
    return OTHER_EXPIRY, 0
  end
  if is_live(meta, time) then
    -- A complete entry that only the keys lost. Writers see its meta data and do not list it again.
    restored_keys[#restored_keys + 1] = 0
    restored_keys[#restored_keys + 1] = members[i]
    if tonumber(scores[i] or 0) ~= expires_at(meta) then
      set_instant(members[i], expires_at(meta))
    end
    return UNLISTED, 0
  end
  -- Another program may have set one past the year 9999.
  local expires = math.min(call('PEXPIRETIME', KEYS[i + 3]) + 1, LAST_INSTANT)
  if expires ~= 0 and expires <= time then
    return IN_LINE, 0
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
  -- Meta data of another length counts as lost.
  local meta = found_metas[i] and #found_metas[i] == 38 and found_metas[i]
  local length = redis.pcall('STRLEN', value)
  local found, expires
  if type(length) ~= 'number' then
    if not string.find(length.err, 'WRONGTYPE', 1, true) then
      return length
    end
    found, length = NO_STRING, 0
  elseif length > 0 or call('EXISTS', value) == 1 then
    found, expires = judge_value(i, meta, length)
  else
    found = judge_missing(i, meta)
    if found == WITHOUT_VALUE then
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
-- Removals come last, once for each key: they may empty it.
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
