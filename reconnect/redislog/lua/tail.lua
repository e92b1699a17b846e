-- Returns where the log ends: the id and the field of its last entry, but not
-- the value, which may be big. Of a log that was trimmed empty only the id, and
-- of a topic whose numbering is further than its log only that.
-- KEYS: the log, the numbering (if it may be a topic).
local entry = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local numbered = KEYS[2] and redis.call('HMGET', KEYS[2], 'e', 's')
if numbered and numbered[1] then
  local id = numbered[1] .. '-' .. (numbered[2] or '')
  if not entry or entry[1] ~= id then
    local seq = tonumber(numbered[2])
    if not seq then
      return redis.error_reply('BROKEN numbering')
    end
    if not entry or tonumber(string.match(entry[1], '%d+$')) < seq then
      return {id}
    end
  end
end
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
