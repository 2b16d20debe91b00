#!/usr/bin/env perl

# Bounds: targets asked at a time, purges at a time, time for a target; a client that leaves; SIGTERM in the middle.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use JSON::PP ();

my @pods = sort { $a->port <=> $b->port } map { fake_pod() } 1 .. 3;
my $d = daemon('broadcasterd', http => 1, env => { BROADCASTERD_TARGETS => join(' ', map { $_->address } @pods), BROADCASTERD_CONCURRENCY => 1,
	BROADCASTERD_MAX_PURGES => 2, BROADCASTERD_JOURNAL => 'none' });
my $hold = JSON::PP::true();
sub counts { return join ' ', map { scalar $_->purges } @pods }
sub start { my ($target) = @_; my $c = EG::HTTP->new($d->url); $c->send("PURGE $target HTTP/1.1\r\nHost: x\r\n\r\n"); return $c }

subtest 'one target at a time' => sub {
	$_->mode(hold => $hold) for @pods;
	my $c = start('/one');
	for my $i (0 .. 2) {
		$pods[$i]->wait(held => 1);
		is counts(), join(' ', (1) x ($i + 1), (0) x (2 - $i)), 'the next is asked when the one before has answered';
		$pods[$i]->control('POST', 'release');
	}
	is $c->response->{status}, 200, 'all have purged';
};

subtest 'two purges at a time' => sub {
	$pods[0]->mode(hold => $hold);
	my @c = map { start("/two/$_") } 1 .. 2;
	$pods[0]->wait(held => 1);
	wait_for { http('PURGE', $d->url . '/three')->{status} == 503 } 'both to have begun';
	my $r = http('PURGE', $d->url . '/three');
	is $r->{status}, 503, 'a third has to come again';
	is $r->{headers}{'retry-after'}, 1, 'says when';
	$pods[0]->control('POST', 'release');
	is $_->response->{status}, 200, 'the two are done' for @c;
	is http('PURGE', $d->url . '/three')->{status}, 200, 'then there is room';
};

subtest 'a client that leaves' => sub {
	my $n = $pods[2]->purges;
	$pods[0]->mode(hold => $hold);
	my $c = start('/left');
	$pods[0]->wait(held => 1);
	$c->close;
	$pods[0]->control('POST', 'release');
	$pods[2]->wait(purges => $n + 1);
	is((($pods[2]->purges)[-1])->{target}, '/left', 'does not stop its purge');
};

subtest 'SIGTERM in the middle' => sub {
	$pods[0]->mode(hold => $hold);
	my $c = start('/term');
	$pods[0]->wait(held => 1);
	$d->signal('TERM');
	wait_for { !eval { EG::HTTP->new($d->url); 1 } || $d->log =~ /drain/ } 'the drain';
	$pods[0]->control('POST', 'release');
	is $c->response->{status}, 200, 'the purge is finished';
	$d->wait_exit;
};

subtest 'a target that takes too long' => sub {
	my $quick = daemon('broadcasterd', http => 1, env => { BROADCASTERD_TARGETS => join(' ', (map { $_->address } @pods), '127.0.0.1:1'),
		BROADCASTERD_TIMEOUT => '300ms', BROADCASTERD_CONNECT_TIMEOUT => '200ms', BROADCASTERD_JOURNAL => 'none' });
	$pods[1]->mode(hold => $hold, times => 1);
	my $r = http('PURGE', $quick->url . '/slow');
	is $r->{status}, 502, 'reported';
	my %by = map { $_->{pod} => $_ } @{ json_decode($r->{body})->{results} };
	is $by{ $pods[1]->address }{error}, 'no answer in time', 'which and why';
	is $by{ $pods[1]->address }{status}, 0, 'no status';
	like $by{'127.0.0.1:1'}{error}, qr/onnect/, 'nobody listens there';
	ok $by{ $pods[$_]->address }{success}, 'the others have purged' for 0, 2;
	$pods[1]->control('POST', 'release');
};

subtest 'settings that cannot be' => sub {
	for ([ BROADCASTERD_TARGETS => 'nohost' ], [ BROADCASTERD_TARGETS => 'http://a:1' ], [ TARGET_SERVICE => 'http://x' ],
		[ BROADCASTERD_RETRY_INTERVAL => '2s' ], [ BROADCASTERD_TIMEOUT => '10ms' ], [ BROADCASTERD_TOKEN_FILE => '/nowhere' ]) {
		my ($name, $value) = @$_;
		local $ENV{$name} = $value;
		my $out = `${\ eg_bin('broadcasterd')} --check-config 2>&1`;
		is $? >> 8, 78, "$name=$value";
		like $out, qr/\Q$name\E/, 'names it';
	}
};

done_testing;
