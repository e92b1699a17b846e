-- Drops entries whose frames are all older than what is to be kept.
-- KEYS: the log. ARGV: the id of the entry that was added last; the Seq of the
-- first frame to keep.
local entry = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not entry or entry[1] ~= ARGV[1] then
  return 'OK' -- somebody else's turn
end

local function less(a, b) -- of decimal numbers without leading zeros
  return #a < #b or #a == #b and a < b
end

-- What is to be kept may begin in the part of an owner before.
while entry do
  local epoch = string.match(entry[1], '^%d+')
  local first = redis.call('XRANGE', KEYS[1], epoch .. '-0', '+', 'COUNT', 1)[1]
  local seq = string.match(first[1], '%d+$')
  -- A fence bears the number of the last frame before it.
  if less(seq, ARGV[2]) or seq == ARGV[2] and string.sub(first[2][1], 2, 2) ~= 'f' then
    redis.call('XTRIM', KEYS[1], 'MINID', '~', epoch .. '-' .. ARGV[2])
    return 'OK'
  end
  entry = redis.call('XREVRANGE', KEYS[1], '(' .. epoch .. '-0', '-', 'COUNT', 1)[1]
end
return 'OK'
