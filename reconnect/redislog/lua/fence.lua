-- Writes a fence behind the last frame, and returns where the log ended before
-- it, and the entry with that frame if there still is one.
-- KEYS: the log. ARGV: the new epoch; the fence's field, unlike any other; TTL
-- in ms or 0.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end

local tail
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then
    tail = info[i + 1]
  end
end

local frame -- the last entry that is no fence
local from = '+'
local again = false
repeat
  local entry = redis.call('XREVRANGE', KEYS[1], from, '-', 'COUNT', 1)[1]
  if not entry then
    break
  end
  if string.sub(entry[2][1], 2, 2) ~= 'f' then
    frame = entry
  elseif entry[1] == tail and entry[2][1] == ARGV[2] then
    again = true -- this call was made before, and its answer lost
  end
  from = '(' .. entry[1]
until frame

if not again then
  local epoch, seq = string.match(tail, '^(%d+)-(%d+)$')
  local new = #epoch < #ARGV[1] or #epoch == #ARGV[1] and epoch < ARGV[1]
  if not new then
    return 'FENCED'
  end
  redis.call('XADD', KEYS[1], ARGV[1] .. '-' .. seq, ARGV[2], '')
end
if ARGV[3] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
else
  redis.call('PERSIST', KEYS[1])
end
if frame then
  return {tail, frame}
end
return {tail}
