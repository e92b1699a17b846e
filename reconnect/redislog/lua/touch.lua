-- Puts off the log's end, if it has one and that would be sooner.
-- KEYS: the log. ARGV: TTL in ms or 0 for none.
local left = redis.call('PTTL', KEYS[1])
if left >= 0 then
  if ARGV[1] == '0' then
    redis.call('PERSIST', KEYS[1])
  elseif left < tonumber(ARGV[1]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
  end
end
return 'OK'
