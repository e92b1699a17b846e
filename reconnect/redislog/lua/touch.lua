-- Puts off the log's end, and that of a topic's numbering, if it has one and
-- that would be sooner.
-- KEYS: the log, the numbering. ARGV: the TTL of each in ms or 0 for none.
for i, key in ipairs(KEYS) do
  local left = redis.call('PTTL', key)
  if left >= 0 then
    if ARGV[i] == '0' then
      redis.call('PERSIST', key)
    elseif left < tonumber(ARGV[i]) then
      redis.call('PEXPIRE', key, ARGV[i])
    end
  end
end
return 'OK'
