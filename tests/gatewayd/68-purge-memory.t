#!/usr/bin/env perl

# A full gatewayd is purged of everything: the loop hardly works for it, what is held is served on, and the memory
# goes back to the kernel. EG_PURGE_OBJECTS objects (40,000; make bench-purge: 1,000,000), EG_PURGE_ROUNDS times (1; 5),
# of which the middle one counts: a thread's clock goes on while the host takes the processor away.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $MEASURED = !instrumented();
my $N = $ENV{EG_PURGE_OBJECTS} // 40000;
my $ROUNDS = $ENV{EG_PURGE_ROUNDS} // 1;
use constant { BATCH => 2048, LIMIT_MS => 10 };

my $d = daemon('gatewayd', http => 1, rpc => 'gatewayd.0.sock', env => {
	PROVIDER => 'mock', STORE => 'none', CACHE_SIZE => int($N * 1.5 / 1024 + 64) . 'MB', PURGE_TOKEN => 'purge-me-0123456789' });

sub ask
{
	my ($from, $n) = @_;
	my $r = http('POST', $d->url . '/v1/embeddings', [ 'Content-Type' => 'application/json', Authorization => 'Bearer sk-x' ],
		json_encode({ model => 'text-embedding-3-small', dimensions => 16, encoding_format => 'base64', input => [ map { "text $_" } $from .. $from + $n - 1 ] }));
	die "$r->{status} $r->{body}" if $r->{status} != 200;
	return $r->{headers}{'x-cache'};
}

# kB, shared pages too.
sub resident { my ($kb) = slurp('/proc/' . $d->pid . '/status') =~ /^VmRSS:\s+(\d+)/m; return $kb }
# Milliseconds that the thread of the loop ran.
sub loop_ms { my ($pid) = $d->pid; return (split ' ', slurp("/proc/$pid/task/$pid/schedstat"))[0] / 1e6 }
sub metrics { return { http('GET', $d->url . '/metrics')->{body} =~ /^(\w+(?:\{[^}]*\})?) (\S+)$/mg } }
sub long_turns { my $m = metrics(); return $m->{'loop_long_turns_total{preempted="false"}'} + $m->{'loop_long_turns_total{preempted="true"}'} }

ask(0, 64);
my $before = resident();
my @took_ms;

sub fill_and_purge
{
	for (my $n = 64; $n < $N; $n += BATCH) { ask($n, BATCH) }
	my $m = metrics();
	my $objects = $m->{'gatewayd_cache_objects{kind="element"}'};
	cmp_ok $objects, '>=', $N - 64, "$objects objects";
	my $full = resident();
	cmp_ok $full, '>', $before + $N * 0.25, "$before kB before, $full kB full";

	my ($from_ms, $turns) = (loop_ms(), long_turns());
	my $r = http('PURGE', $d->url . '/', [ Authorization => 'Bearer purge-me-0123456789', 'X-Purge-All' => 'true' ]);
	is $r->{status}, 200, 'purged';
	cmp_ok json_decode($r->{body})->{purged}, '>=', $objects, 'all of it';
	# A sanitizer keeps memory of its own.
	return if !$MEASURED;
	# The rest is what the process itself has grown by: buffers of the largest batch, threads.
	my $enough = $before + 6 * 1024 + ($full - $before) / 50;
	wait_for { resident() < $enough } 'the memory to be given back';
	my $took_ms = loop_ms() - $from_ms;
	printf "# %d objects in gatewayd: RSS %.1f MB before, %.1f MB full, %.1f MB after; %.2f ms of processor time of the loop in all, %d turns over 5 ms\n",
		$objects, (map { $_ / 1024 } $before, $full, resident()), $took_ms, long_turns() - $turns;
	push @took_ms, $took_ms;
	return;
}

fill_and_purge() for 1 .. $ROUNDS;
cmp_ok +(sort { $a <=> $b } @took_ms)[@took_ms / 2], '<', LIMIT_MS, 'the loop worked less than 10 ms for it' if $MEASURED;

is ask(0, 64), 'MISS', 'what was there is gone';
is ask(0, 64), 'HIT', 'what comes now is kept';
done_testing;
