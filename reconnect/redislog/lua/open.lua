-- Begins the numbering of a topic if need be, puts off its end, and returns
-- where it stands: epoch and Seq.
-- KEYS: the numbering, the log. ARGV: the Seq that the caller has; TTL of the
-- numbering in ms or 0.
local epoch, last, _, _, fields = number(KEYS[1], KEYS[2], tonumber(ARGV[1]))
if not epoch then
  return redis.error_reply('BROKEN numbering')
end
if #fields > 0 then
  redis.call('HSET', KEYS[1], unpack(fields))
end
expire(KEYS[1], ARGV[2])
return {epoch, last}
