-- Functions shared by the scripts. The client prepends this file to every script except put.lua.
--
-- While a slot is being migrated, its old master runs a script only if all declared keys are
-- present, and rejects each command in it that names a missing key. To never fail halfway, a
-- script does not name a key again after it may have emptied or removed that key. A key that may
-- have expired since the script started is accessed before the first write.
--
-- The metadata of an entry has 38 bytes, big-endian: version (16), created_at, updated_at and
-- expires_at (6 each, milliseconds since 1970, 0 for never), length of the value (4). An entry with
-- an idle TTL has it in 6 more bytes, in milliseconds.

-- The last millisecond of the year 9999.
local LAST_INSTANT = 253402300799999
-- A registration token is valid for one minute. A fence must outlive every token below it.
local TOKEN_VALID_MILLIS = 60000
local FENCE_MILLIS = 600000
-- The member that marks a namespace or a tenant as registered. Keys and names cannot contain NUL.
local MARKER = '\0'

-- The server's clock in milliseconds and in microseconds. Each script reads it once and decides
-- expiry by it.
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000), time[1] * 1000000 + time[2]
end

local function expires_at(meta)
  return (struct.unpack('>I6', meta, 29))
end

-- Returns the idle TTL, or nil if the entry has none.
local function idle_ttl(meta)
  if #meta == 44 then
    return (struct.unpack('>I6', meta, 39))
  end
end

-- Returns whether the metadata has one of the two lengths.
local function is_readable(meta)
  return #meta == 38 or #meta == 44
end

-- Returns whether the metadata (false if missing) belongs to a live entry.
local function is_live(meta, time)
  if not meta then
    return false
  end
  local expires = expires_at(meta)
  return expires == 0 or expires > time
end

-- Returns how much an entry that is removed adds to the number of removed live entries. An entry
-- with unreadable metadata counts as live.
local function counts_as_live(meta, time)
  return meta and (not is_readable(meta) or is_live(meta, time)) and 1 or 0
end

-- Formats a number as a command argument. Some versions of Redis would write `1.8e+12`.
local function digits(number)
  return string.format('%.0f', number)
end

-- Returns a refusal. Refusals are error replies: a normal reply always means that the script did
-- its work, and a refusal that it wrote nothing.
local function refuse(code, ...)
  return { err = table.concat({ code, ... }, ' ') }
end

-- Returns the instant and the idle TTL of an expiry argument: '' is never (0), '+N' is N milliseconds
-- from now, '@N' is N, '~N' is an idle TTL of N, and '~N@I' an idle TTL of N that first ends at I.
-- For an instant past the year 9999, the instant is nil.
local function instant_of(argument, time)
  if argument == '' then
    return 0
  end
  local kind, number, idle = string.sub(argument, 1, 1), string.sub(argument, 2), nil
  if kind == '+' then
    number = time + tonumber(number)
  elseif kind == '~' then
    local ttl, instant = string.match(number, '^(%d+)@?(%d*)$')
    idle = tonumber(ttl)
    number = tonumber(instant) or time + idle
  else
    number = tonumber(number)
  end
  if number <= LAST_INSTANT then
    -- Zero means never. Instant 0 has expired, and so has instant 1.
    return math.max(number, 1), idle
  end
  return nil, idle
end

-- Returns the refusal of an expiry past the year 9999.
local function too_late(index, idle)
  return refuse('TOOLATE', index, idle and 'idle' or 'ttl')
end

-- Returns whether a condition other than '' (always) holds: 'absent', 'present' or a version.
-- `current` is the version of the live entry, or 'absent'.
local function holds(condition, current)
  return condition == current or condition == 'present' and current ~= 'absent'
end

-- Returns the refusal for a condition that does not hold, with the version in hexadecimal digits.
local function conflict(index, current)
  if current ~= 'absent' then
    current = string.gsub(current, '.', function(byte)
      return string.format('%02x', string.byte(byte))
    end)
  end
  return refuse('CONFLICT', index, current)
end

local function unregistered(time, fence)
  return refuse('UNREGISTERED', digits(time), digits(fence))
end

-- Parses a token or a fence. Returns nil if another program has replaced it by something else.
local function counted(text)
  local number = tonumber(text)
  if number and number >= 0 and number < 9007199254740992 then
    return number
  end
end

-- Returns whether a token is accepted, and the fence. A token must be at most a minute old, by the
-- clock of the slot that requested it, and above the fence.
local function accepts(fence_key, token, issued, time)
  -- Without a readable fence, no token is known to be above it.
  local fence = counted(redis.call('GET', fence_key) or 0) or error('a fence is no number')
  local age = time - (tonumber(issued) or 0)
  local accepted = token ~= '' and age >= 0 and age <= TOKEN_VALID_MILLIS
    and tonumber(token) > fence
  return accepted, fence
end

-- Returns the fence that rejects every token up to this one. It reads the fence key, so it must be
-- called before the first write. An unreadable fence is replaced.
local function raised_fence(fence_key, token)
  return digits(math.max(counted(redis.call('GET', fence_key) or 0) or 0, counted(token) or 0))
end

-- Sets a fence that outlives every token that is valid now.
local function set_fence(fence_key, fence)
  redis.call('SET', fence_key, fence, 'PX', FENCE_MILLIS)
end

-- Removes keys from the index of a namespace. Returns how many each of the three parts contained.
local function forget(keys, metas, expiries, members)
  local from_keys = redis.call('ZREM', keys, unpack(members))
  local from_metas = redis.call('HDEL', metas, unpack(members))
  return from_keys, from_metas, redis.call('ZREM', expiries, unpack(members))
end

-- Returns the keys that have expired according to the sorted set of expiries, in two lists, and
-- their number. The first list has the dead keys. The second has keys that are live according to
-- their metadata, each preceded by that expiry. The metadata decides, because a stale expiry must
-- not remove a live entry.
local function dead_and_live(metas, expiries, time, limit)
  local members = redis.call('ZRANGE', expiries, 0, time, 'BYSCORE', 'LIMIT', 0, limit)
  local dead, live = {}, {}
  if #members > 0 then
    local found = redis.call('HMGET', metas, unpack(members))
    for i = 1, #members do
      local meta = found[i]
      -- Unreadable metadata counts as dead.
      if meta and is_readable(meta) and is_live(meta, time) then
        live[#live + 1] = digits(expires_at(meta))
        live[#live + 1] = members[i]
      else
        dead[#dead + 1] = members[i]
      end
    end
  end
  return dead, live, #members
end

-- Sets the expiries of live keys to those in their metadata, where 0 is never.
local function correct_expiries(expiries, live)
  for i = 1, #live, 2 do
    if live[i] == '0' then
      redis.call('ZREM', expiries, live[i + 1])
    else
      redis.call('ZADD', expiries, live[i], live[i + 1])
    end
  end
end

-- Removes some dead members if there are more than a thousand. Every write that can leave dead
-- members calls it with a step above the number that it can add, so their number stays bounded even
-- without sweeps.
local function clear_some(keys, metas, expiries, time, step)
  if redis.call('ZCOUNT', expiries, 0, time) > 1000 then
    local dead, live = dead_and_live(metas, expiries, time, step)
    correct_expiries(expiries, live)
    if #dead > 0 then
      forget(keys, metas, expiries, dead)
    end
  end
end

-- Removes members from the index of a namespace, and its registration if all three parts are then
-- empty. If one part was lost, the namespace stays listed for the entries in the others. Returns 1
-- if the name of the namespace can be removed, else 0.
local function forget_and_withdraw(keys, metas, expiries, fence_key, members, token)
  local marker = redis.call('ZSCORE', expiries, MARKER)
  local in_keys, in_metas = redis.call('ZCARD', keys), redis.call('HLEN', metas)
  local in_expiries = redis.call('ZCARD', expiries) - (marker and 1 or 0)
  local fence = math.max(in_keys, in_metas, in_expiries) <= #members
    and raised_fence(fence_key, token)
  if #members > 0 then
    local from_keys, from_metas, from_expiries = forget(keys, metas, expiries, members)
    in_keys, in_metas = in_keys - from_keys, in_metas - from_metas
    in_expiries = in_expiries - from_expiries
  end
  if math.max(in_keys, in_metas, in_expiries) > 0 then
    return 0
  end
  if marker then
    redis.call('DEL', expiries)
  end
  set_fence(fence_key, fence)
  return 1
end

-- Lets the engine expire a value at a future instant. For the engine, a key is still alive at its
-- instant; here, an entry is not, hence `- 1`. Before Redis 7.2, PEXPIREAT with the current
-- millisecond removes the value immediately, and SET does not.
local function expire_value(value, expires, time)
  if expires - 1 > time then
    redis.call('PEXPIREAT', value, digits(expires - 1))
  else
    redis.call('SET', value, redis.call('GET', value), 'PXAT', digits(expires - 1))
  end
end

-- Returns metadata with another expiry and idle TTL (nil for none).
local function with_expiry(meta, expires, idle)
  return string.sub(meta, 1, 28) .. struct.pack('>I6', expires) .. string.sub(meta, 35, 38)
    .. (idle and struct.pack('>I6', idle) or '')
end

-- Replaces the expiry and the idle TTL of a live entry.
local function set_expiry(metas, expiries, value, key, meta, expires, idle, time)
  -- A key of the wrong type fails here, before the first write.
  redis.call('ZCARD', expiries)
  redis.call('HSET', metas, key, with_expiry(meta, expires, idle))
  if expires == 0 then
    redis.call('ZREM', expiries, key)
    redis.call('PERSIST', value)
    return
  end
  redis.call('ZADD', expiries, expires, key)
  if expires > time then
    expire_value(value, expires, time)
  else
    redis.call('UNLINK', value)
  end
end
