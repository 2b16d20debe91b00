#!/usr/bin/env perl

# Targets that did not take a purge are told again: until they have, are gone, or have restarted; and a
# kill -9 of the broadcaster forgets nothing.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use JSON::PP ();

my $journal = test_path('state/broadcasterd.journal');
my ($a, $b) = map { fake_pod() } 1 .. 2;
my $local = fake_gatewayd(0);
my $token = 'purge-token-nobody-may-see';
my $d = daemon('broadcasterd', http => 1, rpc => 'broadcasterd.sock', args => ['--log-level=debug'], env => {
	BROADCASTERD_TARGETS => $a->address . ' ' . $b->address, PURGE_TOKEN => $token, BROADCASTERD_JOURNAL => $journal,
	BROADCASTERD_TIMEOUT => '2s', BROADCASTERD_MAX_PENDING => 20, BROADCASTERD_MAX_PENDING_MEMORY => '64KB' });

sub purge { my ($target, @headers) = @_; return http('PURGE', $d->url . $target, [@headers]) }
sub metric
{
	my ($name) = @_;
	return http('GET', $d->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : 0;
}
sub pending { return metric('broadcaster_redeliveries_pending') }
sub ended { return metric(qq(broadcaster_redeliveries_ended_total{result="$_[0]"})) }
sub targets { return map { $_->{target} } $_[0]->purges }

subtest 'until it succeeds' => sub {
	$a->mode(status => 500);
	is purge('/one')->{status}, 502, 'reported';
	ok -s $journal, 'in the journal before it was answered';
	is pending(), 1, 'pending';
	is metric('broadcaster_redelivery_targets'), 1, 'of one target';
	$a->control('GET', 'wait?purges=4');
	$a->mode;
	wait_for { pending() == 0 } 'delivery';
	is ended('delivered'), 1, 'counted';
	is metric('broadcaster_redelivery_lag_seconds_count'), 1, 'with its lag';
	is scalar(grep { $_ eq '/one' } targets($b)), 1, 'the other was told once';
	wait_for { !-e $journal } 'the journal to go: nothing is pending';
};

subtest 'kill -9' => sub {
	$a->mode(status => 503);
	$local->mode(status => 500, error => 'no');
	purge("/kill/$_") for 1 .. 5;
	is pending(), 10, 'pending';
	$d->kill9;
	$a->mode;
	$local->mode;
	$d->start;
	wait_for { pending() == 0 } 'delivery';
	my %got = map { ($_ => 1) } targets($a);
	is scalar(grep { $got{"/kill/$_"} } 1 .. 5), 5, 'all were delivered by the next process';
	like $d->log, qr/10 pending purges from the journal/, 'says so';
	$a->mode(status => 503);
	purge('/term');
	$d->stop;
	ok -s $journal, 'a stop keeps them too';
	$a->mode;
	$d->start;
	wait_for { pending() == 0 } 'delivery';
	is((targets($a))[-1], '/term', 'after the start');
};

subtest 'another instance' => sub {
	$a->mode(status => 500, instance => 'first');
	$local->mode(status => 500, instance => 'first');
	purge('/memory');
	is purge('/', 'X-Purge-All' => 'true', 'X-Purge-Store' => 'true')->{status}, 502, 'of the store';
	is pending(), 4, 'pending';
	my $restarted = ended('restarted');
	my $n = scalar $a->purges;
	$a->mode(status => 500, instance => 'second');
	$local->mode(status => 500, instance => 'second');
	wait_for { ended('restarted') - $restarted == 2 } 'the purges of memory to be forgotten';
	# Some more attempts: those of the store stay.
	$_->wait(purges => scalar($a->purges) + 4) for $a;
	$local->wait(requests => $local->counters->{requests} + 4);
	is ended('restarted') - $restarted, 2, 'no others are';
	is pending(), 2, 'those of the store are not';
	$a->mode;
	$local->mode;
	wait_for { pending() == 0 } 'delivery';
	my ($first, @more) = map { map { $_->[1] } grep { lc $_->[0] eq 'x-purge-time' } @{ $_->{headers} } }
		grep { grep { lc $_->[0] eq 'x-purge-store' } @{ $_->{headers} } } $a->purges;
	ok @more > 0, 'told again';
	is scalar(grep { $_ ne $first } @more), 0, 'of the same time, however late';
};

subtest 'what is refused is not repeated, what is denied is' => sub {
	my ($refused, $n) = (ended('refused'), scalar $a->purges);
	$a->mode(status => 400, body => '{"error":{"message":"bad"}}');
	is purge('/bad')->{status}, 502, 'reported';
	is pending(), 0, 'not pending';
	is scalar($a->purges), $n + 1, 'told once';
	$a->mode(status => 403);
	is purge('/denied')->{status}, 502, 'another token';
	is pending(), 1, 'pending';
	$a->mode;
	wait_for { pending() == 0 } 'the token to be right';
	pass 'delivered';
};

subtest 'a purge that only one target dislikes does not hold up others' => sub {
	$a->mode(status => 500, times => 1);
	purge('/first');
	purge('/second');
	wait_for { pending() == 0 } 'delivery';
	pass 'delivered';
};

subtest 'a target that is slow' => sub {
	$a->mode(hold => JSON::PP::true());
	my $r = purge('/slow');
	is $r->{status}, 502, 'timed out';
	like $r->{body}, qr/no answer in time/, 'says so';
	# Attempts that last longer and longer are what it needs.
	$a->control('GET', 'wait?held=1');
	$a->control('POST', 'release');
	wait_for { pending() == 0 } 'delivery';
	pass 'delivered';
};

subtest 'the same purge again waits once' => sub {
	$a->mode(status => 500);
	purge('/same') for 1 .. 5;
	# One may be on its way already, and perhaps too early for the others.
	cmp_ok pending(), '<=', 2, 'pending';
	$a->mode;
	wait_for { pending() == 0 } 'delivery';
};

subtest 'too many become one of everything' => sub {
	my $merged = ended('merged');
	$a->mode(status => 500);
	purge("/many/$_") for 1 .. 40;
	cmp_ok pending(), '<=', 21, 'bounded';
	cmp_ok ended('merged') - $merged, '>', 20, 'counted';
	$a->mode;
	wait_for { pending() == 0 } 'delivery';
	my %everything = map { $_->{target} => 1 } grep { grep { lc $_->[0] eq 'x-purge-all' } @{ $_->{headers} } } $a->purges;
	ok $everything{'/'}, 'it was purged of everything';
	unlike $d->log, qr/are lost/, 'nothing is lost';

	$a->mode(status => 500);
	purge('/' . 'x' x 10_000 . $_) for 1 .. 30;
	cmp_ok metric('broadcaster_redelivery_bytes'), '<=', 64 << 10, 'bounded in memory';
	$a->mode;
	wait_for { pending() == 0 } 'delivery';

	# Nobody takes these: they cannot be made coarser, so no more of them come in.
	$_->mode(status => 500) for $a, $b, $local;
	my @status = map { purge('/', 'X-Purge-Key' => sprintf('%064x', $_), 'X-Purge-Store' => 'true', 'X-Long' => 'y' x 5000)->{status} } 1 .. 20;
	is $status[0], 502, 'purges of the store are kept';
	is $status[-1], 503, 'until there are too many that nobody took';
	my $kept = grep { $_ == 502 } @status;
	is purge('/memory')->{status}, 502, 'those of memory are still taken';
	my $n = () = $a->purges;
	$_->mode for $a, $b, $local;
	wait_for { pending() == 0 } 'delivery';
	my %keys = map { map { ($_->[1] => 1) } grep { lc $_->[0] eq 'x-purge-key' } @{ $_->{headers} } } ($a->purges)[ $n .. scalar($a->purges) - 1 ];
	is scalar(keys %keys), $kept, 'each of them was delivered';
};

subtest 'a broken journal' => sub {
	$d->stop;
	spew($journal, 'not a journal');
	$d->start;
	is pending(), 0, 'starts empty';
	is slurp("$journal.bad"), 'not a journal', 'put aside';
	like $d->log, qr/is no journal of pending purges/, 'said';
	$a->mode(status => 500);
	purge('/x');
	$d->stop;
	my $whole = slurp($journal);
	substr($whole, 120, 1) ^= "\1";
	spew($journal, $whole);
	$d->start;
	is pending(), 0, 'one wrong bit';
	$a->mode;
};

subtest 'a journal that cannot be written' => sub {
	$d->stop;
	my $here = test_path('a file');
	spew($here, '');
	$d->start(env => { %{ $d->{env} }, BROADCASTERD_JOURNAL => "$here/journal" });
	$a->mode(status => 500);
	is purge('/y')->{status}, 502, 'answered all the same';
	like $d->log, qr/would not outlive this process/, 'said';
	cmp_ok metric('broadcaster_journal_saves_total{result="failed"}'), '>', 0, 'counted';
	$a->mode;
	wait_for { pending() == 0 } 'delivery';
	pass 'delivered';
};

$d->stop;
unlike $d->log, qr/\Q$token\E/, 'the token is in no log';

done_testing;
