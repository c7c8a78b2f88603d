-- Returns live keys of a namespace in byte order or in reverse, optionally with their metadata.
--
-- KEYS: keys, metas, expiries. ARGV: from and to (bounds of ZRANGE BYLEX, in the direction of the
-- page), the limit, 'metas' or '', 'reversed' or ''. Returns the bound at which to continue if the
-- script stopped early, else nil; the time; then the keys, each followed by its metadata if
-- requested.
local keys, metas, expiries = KEYS[1], KEYS[2], KEYS[3]
local from, to, wanted = ARGV[1], ARGV[2], tonumber(ARGV[3])
local with_metas, reversed = ARGV[4] == 'metas', ARGV[5] == 'reversed'
local time = now()
local some_dead = redis.call('ZCOUNT', expiries, 0, time) > 0
-- Limits how many keys, live or dead, the script reads while the server serves no other client.
local budget = wanted + 4000
local answer, found = { false, time }, 0

while found < wanted do
  if budget <= 0 then
    answer[1] = from
    break
  end
  local ask = math.min(wanted - found, 1000)
  local members
  if reversed then
    members = redis.call('ZRANGE', keys, from, to, 'BYLEX', 'REV', 'LIMIT', 0, ask)
  else
    members = redis.call('ZRANGE', keys, from, to, 'BYLEX', 'LIMIT', 0, ask)
  end
  if #members == 0 then
    break
  end
  budget = budget - #members
  local details
  if with_metas then
    details = redis.call('HMGET', metas, unpack(members))
  elseif some_dead then
    details = redis.call('ZMSCORE', expiries, unpack(members))
  end
  for i = 1, #members do
    local live
    if with_metas then
      live = is_live(details[i], time)
    else
      local score = some_dead and details[i]
      live = not score or tonumber(score) > time
    end
    if live then
      found = found + 1
      answer[#answer + 1] = members[i]
      if with_metas then
        answer[#answer + 1] = details[i]
      end
    end
  end
  if #members < ask then
    break
  end
  from = '(' .. members[#members]
end
return answer
