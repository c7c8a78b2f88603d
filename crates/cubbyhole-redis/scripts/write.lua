-- Applies an atomic batch of puts and deletes in one namespace. A single put is a batch of one. An
-- empty batch only registers the namespace.
--
-- KEYS: keys, metas, expiries, the value of each operation; with a token, also the fence.
-- ARGV: the token or '', the instant at which it was requested; then five for each operation: key,
--       condition ('' always, 'absent', 'present', or a version), new version ('' deletes), expiry,
--       value.
-- Returns the indexes of the deletes that removed a live entry.
--
-- The script is about half of the cost of a put, so the common path avoids function calls.
local call = redis.call
local metas, expiries = KEYS[2], KEYS[3]
local clock = call('TIME')
local time = clock[1] * 1000 + math.floor(clock[2] / 1000)
local count = (#ARGV - 2) / 5
-- For each operation: the metadata before it, the creation instant (0 if there is no live entry),
-- and the new expiry (nil is never) and idle TTL (nil is none).
local metas_before, created_before, instants, idles = {}, {}, {}, {}
-- The marker and the keys of puts without metadata; for each operation, the position of its key.
local unknown, unknown_at = { MARKER }, {}
-- For each delete, whether it removes a value without metadata.
local orphaned = {}
local expects_registration, may_expire = count == 0, false
local touches_keys, touches_expiries = false, false

-- A TTL that ends past the year 9999 is refused before any condition is evaluated.
for i = 1, count do
  local at = i * 5 - 2
  if ARGV[at + 3] ~= '' then
    instants[i], idles[i] = instant_of(ARGV[at + 3], time)
    if not instants[i] then
      return too_late(i - 1, idles[i])
    end
    may_expire = true
  end
end

for i = 1, count do
  local at = i * 5 - 2
  local meta = call('HGET', metas, ARGV[at])
  local created = 0
  if meta then
    local created_at, expires = struct.unpack('>I6xxxxxxI6', meta, 17)
    if expires == 0 or expires > time then
      created = created_at
    else
      -- The value may have expired since the script started: see the prelude.
      call('EXISTS', KEYS[i + 3])
    end
    touches_expiries = touches_expiries or expires ~= 0
  end
  local condition = ARGV[at + 1]
  if condition ~= '' then
    local current = created > 0 and string.sub(meta, 1, 16) or 'absent'
    if not holds(condition, current) then
      return conflict(i - 1, current)
    end
  end
  if ARGV[at + 2] ~= '' then
    expects_registration = expects_registration or created == 0
    if not meta then
      touches_keys = true
      unknown[#unknown + 1] = ARGV[at]
      unknown_at[i] = #unknown
    end
  else
    touches_keys = true
    orphaned[i] = not meta and call('EXISTS', KEYS[i + 3]) == 1
  end
  metas_before[i], created_before[i] = meta, created
end

-- A key of the wrong type, written by another program, fails here, before the first write.
if touches_keys then
  call('ZCARD', KEYS[1])
end
if touches_keys or touches_expiries or may_expire then
  call('ZCARD', expiries)
end

local scores = expects_registration and call('ZMSCORE', expiries, unpack(unknown))
if scores and not scores[1] then
  local token = ARGV[1]
  if token == '' then
    return unregistered(time, 0)
  end
  local accepted, fence = accepts(KEYS[#KEYS], token, ARGV[2], time)
  if not accepted then
    return unregistered(time, fence)
  end
  call('ZADD', expiries, -1, MARKER)
end

local deleted, forgotten = {}, {}
for i = 1, count do
  local at = i * 5 - 2
  local key, version, value = ARGV[at], ARGV[at + 2], KEYS[i + 3]
  local meta, created = metas_before[i], created_before[i]
  if version ~= '' then
    local bytes, expires = ARGV[at + 4], instants[i] or 0
    if not meta then
      call('ZADD', KEYS[1], 0, key)
    end
    if created == 0 then
      created = time
    end
    local new = version .. struct.pack('>I6I6I6I4', created, time, expires, #bytes)
    if idles[i] then
      new = new .. struct.pack('>I6', idles[i])
    end
    call('HSET', metas, key, new)
    if expires == 0 then
      call('SET', value, bytes)
      -- A leftover expiry without metadata would expire the new entry.
      if (meta and expires_at(meta) ~= 0) or (unknown_at[i] and scores[unknown_at[i]]) then
        call('ZREM', expiries, key)
      end
    else
      call('ZADD', expiries, expires, key)
      if expires > time then
        -- See expire_value.
        call('SET', value, bytes, 'PXAT', digits(expires - 1))
      else
        call('UNLINK', value)
      end
    end
  elseif meta or orphaned[i] then
    call('UNLINK', value)
    forgotten[#forgotten + 1] = key
    if created > 0 then
      deleted[#deleted + 1] = i - 1
    end
  end
end

if #forgotten > 0 then
  forget(KEYS[1], metas, expiries, forgotten)
end
if may_expire then
  clear_some(KEYS[1], metas, expiries, time, math.max(100, 2 * count))
end
return deleted
