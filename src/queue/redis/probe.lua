-- Learns whether this user may do on this server what the other scripts do, without touching the stream.
-- KEYS: the probe's stream, the producers' markers, the probe's repeat, the stream. ARGV: the time.
redis.call('XADD', KEYS[1], 'MAXLEN', 1, '*', 'at', ARGV[1])
redis.call('PEXPIRE', KEYS[1], 60000)
redis.call('XLEN', KEYS[1])
redis.call('HSET', KEYS[2], 'probe', ARGV[1])
redis.call('HGET', KEYS[2], 'probe')
redis.call('SET', KEYS[3], ARGV[1], 'NX', 'PX', 60000)
redis.call('GET', KEYS[3])
return redis.call('TYPE', KEYS[4])['ok']
