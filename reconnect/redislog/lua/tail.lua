-- Returns where the log ends: the id and the field of its last entry, but not
-- the value, which may be big. Of a log that was trimmed empty only the id.
-- KEYS: the log.
local entry = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if entry then
  return {entry[1], entry[2][1]}
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then
    return {info[i + 1]}
  end
end
