-- What the scripts share. It stands before each of them.
--
-- While a slot is being moved, its old master fails a command that names a key that is not there.
-- It lets a script in if all of its keys are there; so that none ends half way, no script names a
-- key again that it may have emptied or removed, nor one for the first time after its first write
-- that the engine may have removed since it was let in: it asks for that one before.
--
-- The meta data of an entry, 38 bytes, big-endian: version (16), created_at, updated_at and
-- expires_at (6 each, milliseconds since 1970, 0 for never), length of the value (4).

-- The last millisecond of the year 9999.
local LAST_INSTANT = 253402300799999
-- A token is taken for a minute after it was asked for; a fence outlives it by far.
local TOKEN_VALID_MILLIS = 60000
local FENCE_MILLIS = 600000
-- The member that says that a namespace or a tenant is registered. No key or name holds NUL.
local MARKER = '\0'

-- The one source that decides expiry: the server's clock, read once in each script.
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000), time[1] * 1000000 + time[2]
end

local function expires_at(meta)
  return (struct.unpack('>I6', meta, 29))
end

-- Whether meta data (false: there is none) is of an entry that is live.
local function is_live(meta, time)
  if not meta then
    return false
  end
  local expires = expires_at(meta)
  return expires == 0 or expires > time
end

-- The instant that an argument means: '' never (0), '+N' after N milliseconds, '@N' at N. Nothing
-- if it is past the year 9999.
local function instant_of(argument, time)
  if argument == '' then
    return 0
  end
  local number = tonumber(string.sub(argument, 2))
  if string.sub(argument, 1, 1) == '+' then
    number = time + number
  end
  if number <= LAST_INSTANT then
    -- 1970 is as past as the next millisecond, and zero is taken.
    return math.max(number, 1)
  end
end

-- A number as an argument: some versions of Redis write it as `1.8e+12`.
local function digits(number)
  return string.format('%.0f', number)
end

-- Refusals are errors, so that they cannot be taken for answers: nothing was written.
local function refuse(code, ...)
  return { err = table.concat({ code, ... }, ' ') }
end

local function unregistered(time, fence)
  return refuse('UNREGISTERED', digits(time), digits(fence))
end

-- A token or a fence as a number; nothing for what another program has put in its place.
local function counted(text)
  local number = tonumber(text)
  if number and number >= 0 and number < 9007199254740992 then
    return number
  end
end

-- Whether a token registers: it must be fresh, by the clock of the slot that asked for it, and
-- drawn after the last time that nothing was found to be live here.
local function accepts(fence_key, token, issued, time)
  -- Past one that cannot be read no token is known to be.
  local fence = counted(redis.call('GET', fence_key) or 0) or error('a fence is no number')
  local age = time - (tonumber(issued) or 0)
  local accepted = token ~= '' and age >= 0 and age <= TOKEN_VALID_MILLIS
    and tonumber(token) > fence
  return accepted, fence
end

-- What refuses every token up to this one; to be asked for before the first write. One that cannot
-- be read is replaced.
local function raised_fence(fence_key, token)
  return digits(math.max(counted(redis.call('GET', fence_key) or 0) or 0, counted(token) or 0))
end

-- Sets a fence for longer than any token is valid.
local function set_fence(fence_key, fence)
  redis.call('SET', fence_key, fence, 'PX', FENCE_MILLIS)
end

-- Removes keys from the indexes of a namespace. Answers how many of them each of the three had.
local function forget(keys, metas, expiries, members)
  local from_keys = redis.call('ZREM', keys, unpack(members))
  local from_metas = redis.call('HDEL', metas, unpack(members))
  return from_keys, from_metas, redis.call('ZREM', expiries, unpack(members))
end

-- Keys that have expired by the index of expiries, in two lists: those that are dead, and those that
-- are live by their meta data, each after the expiry in it. Meta data decides: a stale index of
-- expiries must not remove a live entry.
local function dead_and_live(metas, expiries, time, limit)
  local members = redis.call('ZRANGE', expiries, 0, time, 'BYSCORE', 'LIMIT', 0, limit)
  local dead, live = {}, {}
  if #members > 0 then
    local found = redis.call('HMGET', metas, unpack(members))
    for i = 1, #members do
      local meta = found[i]
      -- What cannot be read is removed like the rest.
      if meta and #meta == 38 and is_live(meta, time) then
        live[#live + 1] = digits(expires_at(meta))
        live[#live + 1] = members[i]
      else
        dead[#dead + 1] = members[i]
      end
    end
  end
  return dead, live, #members
end

-- Gives live keys the instants that their meta data says, 0 for never.
local function correct_expiries(expiries, live)
  for i = 1, #live, 2 do
    if live[i] == '0' then
      redis.call('ZREM', expiries, live[i + 1])
    else
      redis.call('ZADD', expiries, live[i], live[i + 1])
    end
  end
end

-- What can leave dead members behind also clears some away, more than it can add, so that they never
-- outnumber this however long nobody sweeps.
local function clear_some(keys, metas, expiries, time, step)
  if redis.call('ZCOUNT', expiries, 0, time) > 1000 then
    local dead, live = dead_and_live(metas, expiries, time, step)
    correct_expiries(expiries, live)
    if #dead > 0 then
      forget(keys, metas, expiries, dead)
    end
  end
end

-- Removes members from the indexes of a namespace, and its registration once all three are empty: if
-- one was lost, the namespace stays listed for the entries of the others. Answers whether its name may
-- go.
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

-- Has the engine remove a value at an instant that lies ahead. The engine counts the instant itself
-- as alive; here it is the first that is not. For the next millisecond PEXPIREAT would remove the
-- value at once, and SET does not (before Redis 7.2).
local function expire_value(value, expires, time)
  if expires - 1 > time then
    redis.call('PEXPIREAT', value, digits(expires - 1))
  else
    redis.call('SET', value, redis.call('GET', value), 'PXAT', digits(expires - 1))
  end
end

-- Gives a live entry another expiry.
local function set_expiry(metas, expiries, value, key, meta, expires, time)
  -- A key of another type fails here and not half way.
  redis.call('ZCARD', expiries)
  local changed = string.sub(meta, 1, 28) .. struct.pack('>I6', expires) .. string.sub(meta, 35)
  redis.call('HSET', metas, key, changed)
  if expires == 0 then
    redis.call('ZREM', expiries, key)
    redis.call('PERSIST', value)
    return changed
  end
  redis.call('ZADD', expiries, expires, key)
  if expires > time then
    expire_value(value, expires, time)
  else
    redis.call('UNLINK', value)
  end
  return changed
end
