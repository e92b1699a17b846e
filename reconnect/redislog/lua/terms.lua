-- Returns where the log ends; the epoch of the numbering and the Seqs after which
-- nothing is missing before it, or two empty strings; the same of numberings
-- before, as q; and of each epoch in the log the first entry's id and field and
-- the last entry's id. All of that is of one moment: a numbering may begin anew
-- at any time.
-- KEYS: the log, the numbering (if it may be a topic).
local numbered = redis.call('HMGET', KEYS[2], 'e', 'p', 'q', 's')
local terms = {false, numbered[1] or '', numbered[2] or '', numbered[3] or ''}
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      terms[1] = info[i + 1]
    end
  end
end
if numbered[1] then
  local seq = tonumber(numbered[4])
  if not seq then
    return redis.error_reply('BROKEN numbering')
  end
  if not terms[1] or tonumber(string.match(terms[1], '%d+$')) < seq then
    terms[1] = numbered[1] .. '-' .. numbered[4]
  end
end
if not terms[1] then
  return false
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
