-- Fast path of write.lua for one put without condition and expiry into a registered namespace. The
-- script is about half of the cost of a put, so this one has no prelude and no function calls. If
-- the namespace is not registered, the client sends write.lua.
--
-- KEYS: keys, metas, expiries, value. ARGV: key, version, value.
local call = redis.call
local clock = call('TIME')
local time = clock[1] * 1000 + clock[2] / 1000
time = time - time % 1
local key, bytes = ARGV[1], ARGV[3]
local meta = call('HGET', KEYS[2], key)
local created, expires, stale = 0, 0, false
if meta then
  created, expires = struct.unpack('>I6xxxxxxI6', meta, 17)
end
if created == 0 or (expires ~= 0 and expires <= time) then
  -- There is no live entry. A key of the wrong type fails here, before the first write.
  local scores = call('ZMSCORE', KEYS[3], '\0', key)
  if not scores[1] then
    return { err = string.format('UNREGISTERED %.0f 0', time) }
  end
  if meta then
    -- The value may have expired since the script started: see the prelude.
    call('EXISTS', KEYS[4])
  end
  created = time
  -- A leftover expiry without metadata would expire the new entry.
  stale = scores[2]
elseif expires ~= 0 then
  call('ZCARD', KEYS[3])
end
if not meta then
  call('ZADD', KEYS[1], 0, key)
end
call('HSET', KEYS[2], key, ARGV[2] .. struct.pack('>I6I6I6I4', created, time, 0, #bytes))
call('SET', KEYS[4], bytes)
if expires ~= 0 or stale then
  call('ZREM', KEYS[3], key)
end
return 0
