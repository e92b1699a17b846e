-- Returns where the log ends, and of each epoch in it the first entry's id and
-- field and the last entry's id.
-- KEYS: the log.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
local terms = {}
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then
    terms[1] = info[i + 1]
  end
end
local max = '18446744073709551615'
local from = '-'
while true do
  local first = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)[1]
  if not first then
    return terms
  end
  local epoch = string.match(first[1], '^%d+')
  local last = redis.call('XREVRANGE', KEYS[1], epoch .. '-' .. max, first[1], 'COUNT', 1)[1]
  table.insert(terms, {first[1], first[2][1], last[1]})
  if epoch == max then
    return terms
  end
  from = '(' .. epoch .. '-' .. max
end
