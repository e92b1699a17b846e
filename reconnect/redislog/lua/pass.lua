-- Notes a position unless one above it stands there, and puts off its end.
-- KEYS: the position. ARGV: epoch and Seq of the new one; TTL in ms or 0.
local was = redis.call('GET', KEYS[1])
local seq = was and string.match(was, '^%d+%-(%d+)$')
if was and not seq then
  return redis.error_reply('BROKEN position')
end
local function less(a, b) -- of decimal numbers without leading zeros
  return #a < #b or #a == #b and a < b
end
if not seq or less(seq, ARGV[2]) then
  was = ARGV[1] .. '-' .. ARGV[2]
  redis.call('SET', KEYS[1], was, 'KEEPTTL')
end
local left = redis.call('PTTL', KEYS[1])
if ARGV[3] == '0' then
  redis.call('PERSIST', KEYS[1])
elseif not seq or left >= 0 and left < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 'OK'
