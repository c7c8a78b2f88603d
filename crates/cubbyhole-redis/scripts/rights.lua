-- Returns the names of the script commands that the user may not run on the keys of the store.
-- Redis checks permissions for each command, so without this check a script could fail between two
-- writes.
--
-- ARGV: a key of the store, 'wait' if writes wait for replicas.
local key = ARGV[1]
local needed = {
  { 'GET', key }, { 'MGET', key }, { 'SET', key, '' }, { 'DEL', key }, { 'UNLINK', key },
  { 'EXISTS', key }, { 'PERSIST', key }, { 'PEXPIREAT', key, 1 }, { 'HGET', key, '' },
  { 'HMGET', key, '' }, { 'HSET', key, '', '' }, { 'HDEL', key, '' }, { 'HLEN', key }, { 'ZADD', key, 0, '' },
  { 'ZREM', key, '' }, { 'ZRANGE', key, 0, 0 }, { 'ZSCORE', key, '' }, { 'ZMSCORE', key, '' },
  { 'ZCARD', key }, { 'ZCOUNT', key, 0, 0 }, { 'TIME' },
}
if ARGV[2] == 'wait' then
  needed[#needed + 1] = { 'WAIT', 0, 1 }
end
local missing = {}
for _, command in ipairs(needed) do
  if not redis.acl_check_cmd(unpack(command)) then
    missing[#missing + 1] = command[1]
  end
end
return missing
