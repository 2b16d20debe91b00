#!/usr/bin/env perl

# Who may purge, over HTTP and RPC; tokens in no log.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $pod = fake_pod();
my $secret = 'own-token-of-the-broadcaster';
my $file = spew(test_path('token'), "$secret\n");
my $d = daemon('broadcasterd', http => 1, rpc => 'broadcasterd.sock', args => ['--log-level=debug'], env => {
	BROADCASTERD_TARGETS => $pod->address, BROADCASTERD_TOKEN_FILE => $file, BROADCASTERD_JOURNAL => 'none' });

sub purge { my (@headers) = @_; return http('PURGE', $d->url . '/x', [@headers])->{status} }
sub rpc { return $d->rpc->call('purge', [ @_ ]) }

subtest 'HTTP' => sub {
	my $r = http('PURGE', $d->url . '/x');
	is $r->{status}, 403, 'without';
	like json_decode($r->{body})->{error}, qr/token/, 'says why';
	is purge(Authorization => $_), 403, "not '$_'"
		for 'Bearer', 'Bearer ', "Bearer ${secret}x", 'Bearer ' . substr($secret, 1), "Basic $secret", $secret;
	is purge(Authorization => "Bearer $_"), 200, 'with' for $secret, " $secret";
	is purge(Authorization => "bearer $secret"), 200, 'the scheme in any case';
	is purge(Authorization => "Bearer $_->[0]", authorization => "Bearer $_->[1]"), 400, 'two of them' for [ $secret, 'x' ], [ 'x', $secret ], [ $secret, $secret ];
	is scalar($pod->purges), 3, 'only these reached the pod';
	is_deeply [ map { $_->[1] } grep { lc $_->[0] eq 'authorization' } map { @{ $_->{headers} } } $pod->purges ], [],
		'without PURGE_TOKEN none is sent on, least of all ours';
};

subtest 'RPC' => sub {
	is_deeply rpc('path', ['/x'], JSON::PP::false(), ''), [ 403, 'purging needs the token', 0, [] ], 'without';
	is rpc('path', ['/x'], JSON::PP::false(), 'wrong')->[0], 403, 'another';
	my $r = rpc('path', ['/x'], JSON::PP::false(), $secret);
	is_deeply $r, [ 200, '', 1, [ [ $pod->address, 200, JSON::PP::true(), '' ] ] ], 'with';
	is rpc('tags', [], JSON::PP::false(), $secret)->[0], 400, 'an unknown scope';
	is rpc('path', [ 'a b' ], JSON::PP::false(), $secret)->[0], 400, 'a bad path';
	is rpc('tag', [ 'a b' ], JSON::PP::false(), $secret)->[0], 400, 'a tag with a space';
	is rpc('all', [], JSON::PP::true(), $secret)->[0], 200, 'all of the store';
	my %sent = map { @$_ } @{ ($pod->purges)[-1]{headers} };
	is_deeply [ @sent{qw(X-Purge-All X-Purge-Store)} ], [ 'true', 'true' ], 'as header fields';
};

subtest 'a new token' => sub {
	spew($file, "another\n");
	$d->signal('HUP');
	wait_for { purge(Authorization => 'Bearer another') == 200 } 'the new token to be read';
	is purge(Authorization => "Bearer $secret"), 403, 'the old one is none any more';
};

subtest 'no token, RPC' => sub {
	my $open = daemon('broadcasterd', http => 1, rpc => 'open.sock', env => {
		BROADCASTERD_TARGETS => $pod->address, BROADCASTERD_JOURNAL => 'none' });
	is $open->rpc->call('purge', [ 'all', [] ])->[0], 200, 'the own user';
	is http('PURGE', $open->url . '/')->{status}, 200, 'HTTP is open';
};

my $metrics = http('GET', $d->url . '/metrics')->{body};
like $metrics, qr/^broadcaster_purges_total\{result="forbidden"\} \d+$/m, 'counted';
like $d->log, qr/"WARN".*purge refused: not the token.*"client":"127\.0\.0\.1/, 'logged with the client';
unlike $d->log, qr/own-token|another\b/, 'the token is in no log';

done_testing;
