<?php
// One of any number of workers that handle a gateway's jobs. docs/workers.md says why it does what it does.
// apt install php-cli php-redis; REDIS_URL=redis://127.0.0.1:6379 php worker.php
declare(strict_types=1);

function setting(string $name, string $default): string
{
    $value = getenv($name);
    return $value === false || $value === '' ? $default : $value;
}

$app = setting('APP', 'default');
define('GROUP', setting('GROUP', 'workers'));
define('NAME', setting('NAME', gethostname() . '-' . getmypid()));
define('MAX_TRIES', (int) setting('MAX_TRIES', '5'));
define('CLAIM_IDLE_MS', (int) setting('CLAIM_IDLE_MS', '60000')); // longer than any job takes
define('WORK_SECONDS', (float) setting('WORK_SECONDS', '0'));
define('KEYS', "retrieve:{{$app}}:");
const JOBS = KEYS . 'jobs';
const DONE_SECONDS = 24 * 3600;

// Your work. It may run twice for one job, so let $job['id'] be the key of what it does. Throw if it fails.
function handle(array $job): string
{
    $order = $job['data']['data']['order']['id'] ?? throw new RuntimeException('the payload has no order.id');
    $end = microtime(true) + WORK_SECONDS;
    while (($left = $end - microtime(true)) > 0) {
        usleep((int) ($left * 1e6)); // a signal wakes it up
    }
    return "order $order handled";
}

function workOn(Redis $redis, string $entry, ?string $text): void
{
    $pending = $redis->rawCommand('XPENDING', JOBS, GROUP, $entry, $entry, '1');
    if (!$pending || $pending[0][1] !== NAME) {
        return; // another worker has it
    }
    $tries = (int) $pending[0][3];
    // An entry that is no job was put there by somebody else; handling it fails.
    $job = json_decode((string) $text, true, 512, JSON_BIGINT_AS_STRING);
    $job = (is_array($job) ? $job : []) + ['id' => ''];
    $done = KEYS . "done:{$job['id']}";
    if ($redis->exists($done)) {
        $redis->xAck(JOBS, GROUP, [$entry]); // done before, by a worker that was too slow to say so
        return;
    }
    try {
        if ($tries > MAX_TRIES) {
            throw new RuntimeException('given up after ' . MAX_TRIES . ' tries that ended without a word');
        }
        [$status, $message] = ['done', handle($job)];
    } catch (Throwable $error) {
        $status = $tries >= MAX_TRIES ? 'parked' : 'failed';
        $message = $error::class . ': ' . $error->getMessage();
    }
    $redis->multi();
    $result = ['job_id' => $job['id'], 'jobStatus' => $status, 'message' => $message];
    $redis->xAdd(KEYS . 'results', '*', $result, 100000, true);
    if ($status === 'parked') {
        $parked = ['job' => (string) $text, 'entry' => $entry, 'tries' => (string) $tries, 'message' => $message];
        $redis->xAdd(KEYS . 'parked', '*', $parked);
    }
    if ($status === 'done') {
        $redis->set($done, '1', ['EX' => DONE_SECONDS]);
    }
    if ($status !== 'failed') { // what failed stays pending, and is claimed again after CLAIM_IDLE_MS
        $redis->xAck(JOBS, GROUP, [$entry]);
    }
    $redis->exec() ?: throw new RuntimeException('Redis refused the transaction: ' . $redis->getLastError());
}

$stopping = false; // the job in hand is finished first
pcntl_async_signals(true);
foreach ([SIGTERM, SIGINT] as $signal) {
    pcntl_signal($signal, function () use (&$stopping): void {
        $stopping = true;
    });
}

// A lost connection ends the worker; whatever started it starts it again.
$url = parse_url(setting('REDIS_URL', 'redis://127.0.0.1:6379'));
$redis = new Redis();
$redis->connect($url['host'], $url['port'] ?? 6379);
$redis->setOption(Redis::OPT_READ_TIMEOUT, -1);
if (isset($url['pass'])) {
    $redis->auth(array_filter([urldecode($url['user'] ?? ''), urldecode($url['pass'])], strlen(...)));
}
$redis->select((int) ltrim($url['path'] ?? '', '/'));
$redis->rawCommand('XGROUP', 'CREATE', JOBS, GROUP, '0', 'MKSTREAM');
if (!in_array($error = $redis->getLastError(), [null, 'BUSYGROUP Consumer Group name already exists'], true)) {
    throw new RuntimeException($error);
}
$redis->clearLastError();

$cursor = '0-0';
$nextClaim = 0.0;
while (!$stopping) {
    $entries = [];
    if (microtime(true) >= $nextClaim) { // first what a dead worker left, and what failed before
        $claimed = $redis->rawCommand(
            'XAUTOCLAIM', JOBS, GROUP, NAME, (string) CLAIM_IDLE_MS, $cursor, 'COUNT', '1'
        );
        $claimed ?: throw new RuntimeException((string) $redis->getLastError());
        $cursor = $claimed[0];
        foreach ($claimed[1] as [$entry, $fields]) {
            $pairs = array_column(array_chunk($fields ?: [], 2), 1, 0);
            $entries[$entry] = $pairs;
        }
        if (!$entries && $cursor === '0-0') {
            $nextClaim = microtime(true) + min(1, CLAIM_IDLE_MS / 1000);
        }
    }
    if (!$entries) {
        $reply = $redis->xReadGroup(GROUP, NAME, [JOBS => '>'], 1, 1000);
        $entries = $reply[JOBS] ?? [];
    }
    foreach ($entries as $entry => $fields) {
        workOn($redis, (string) $entry, $fields['job'] ?? null);
    }
}
if (!$redis->rawCommand('XPENDING', JOBS, GROUP, '-', '+', '1', NAME)) {
    $redis->rawCommand('XGROUP', 'DELCONSUMER', JOBS, GROUP, NAME); // safe, since nothing is left under this name
}
