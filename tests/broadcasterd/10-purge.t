#!/usr/bin/env perl

# One PURGE to several targets: what goes out, what comes back.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my @pods = map { fake_pod() } 1 .. 3;
my $local = fake_gatewayd(0);
my $token = 'purge-token-that-nobody-may-see';
my $d = daemon('broadcasterd', http => 1, rpc => 'broadcasterd.sock', args => ['--log-level=debug'], env => {
	BROADCASTERD_TARGETS => join(' ', map { $_->address } @pods), PURGE_TOKEN => $token, BROADCASTERD_JOURNAL => 'none' });

sub purge
{
	my ($target, $headers, $body) = @_;
	my $r = http('PURGE', $d->url . $target, $headers, $body);
	$r->{json} = eval { json_decode($r->{body}) };
	return $r;
}
sub field { my ($purge, $name) = @_; return map { $_->[1] } grep { lc $_->[0] eq lc $name } @{ $purge->{headers} } }
sub last_local { return (grep { $_->{method} eq 'purge' } @{ $local->stats->{log} })[-1] }

subtest 'every target' => sub {
	my $r = purge('/v1/models?page=2', [ 'X-Mine' => 'a', 'X-Mine' => 'b', Authorization => 'Bearer of-the-caller',
		Connection => 'keep-alive, X-Hop', 'X-Hop' => 'one', TE => 'trailers', 'Keep-Alive' => 'timeout=5',
		'Proxy-Authorization' => 'Basic eDp5', 'User-Agent' => 'ci/1' ], 'a body');
	is $r->{status}, 200, 'status';
	is $r->{headers}{'content-type'}, 'application/json', 'Content-Type';
	is_deeply $r->{json}, { total => 4, success => 4, failed => 0, results => [
		(map { { pod => $_->address, status => 200, success => JSON::PP::true(), error => undef } }
			sort { $a->port <=> $b->port } @pods),
		{ pod => 'gatewayd.0', status => 200, success => JSON::PP::true(), error => undef } ] }, 'the answer';
	like $r->{body}, qr/^\{"total":4,"success":4,"failed":0,"results":\[\{"pod":"[^"]+","status":200,"success":true,"error":null\}/,
		'in that order';
	for my $pod (@pods) {
		my @purges = $pod->purges;
		is scalar @purges, 1, 'each was told once';
		my $p = $purges[0];
		is "$p->{method} $p->{target}", 'PURGE /v1/models?page=2', 'method and target';
		is $p->{body}, 'a body', 'body';
		is_deeply [ field($p, 'X-Mine') ], [ 'a', 'b' ], 'fields go along, in order';
		is_deeply [ field($p, 'User-Agent') ], ['ci/1'], 'the caller\'s own';
		is_deeply [ field($p, 'Authorization') ], ["Bearer $token"], 'the purge token instead of the caller\'s';
		is_deeply [ map { field($p, $_) } qw(TE Keep-Alive X-Hop Proxy-Authorization Connection) ], [], 'hop-by-hop fields stay here';
		is_deeply [ field($p, 'Host') ], [ $pod->address ], 'Host';
		is_deeply [ field($p, 'Content-Length') ], [6], 'Content-Length';
	}
	my $p = last_local();
	is_deeply { %$p }, { method => 'purge', scope => 'path', values => ['/v1/models?page=2'], store => JSON::PP::false(),
		token => $token, time_ms => 0 }, 'the gatewayd of this pod, over RPC';
};

subtest 'what can be asked for' => sub {
	my $h = 'AB' x 32;
	for ([ 'all', ['X-Purge-All' => 'true'], [], 'all' ],
		[ 'tags', [ 'Surrogate-Key' => 'a  b', 'Surrogate-Key' => 'c' ], [ qw(a b c) ], 'tag' ],
		[ 'a body hash', [ 'X-Body-Hash' => $h ], [$h], 'body_hash' ],
		[ 'an element', [ 'x-purge-key' => $h ], [$h], 'key' ],
		[ 'false is no', [ 'X-Purge-All' => 'false', 'X-Purge-Store' => 'false' ], ['/'], 'path' ]) {
		my ($what, $headers, $values, $scope) = @$_;
		is purge('/', $headers)->{status}, 200, $what;
		my $p = last_local();
		is $p->{scope}, $scope, 'scope';
		is_deeply $p->{values}, $values, 'values';
	}
	my $before = time * 1000;
	is purge('/', [ 'Surrogate-Key' => 'model:m', 'X-Purge-Store' => 'true' ])->{status}, 200, 'of the store';
	my $p = last_local();
	ok $p->{store}, 'said to the gatewayd';
	cmp_ok $p->{time_ms}, '>=', $before, 'with the time of the purge';
	is_deeply [ field(($_->purges)[-1], 'X-Purge-Time') ], [ $p->{time_ms} ], 'and to the other pods' for @pods;
	is purge('/', [ 'X-Purge-Key' => $h, 'X-Purge-Store' => 'true', 'X-Purge-Time' => 1700000000000 ])->{status}, 200, 'of a time';
	is last_local()->{time_ms}, 1700000000000, 'which stays';
	is_deeply [ field(($_->purges)[-1], 'X-Purge-Time') ], [1700000000000], 'everywhere' for @pods;
};

subtest 'what cannot be a purge reaches nobody' => sub {
	my $n = grep { 1 } map { $_->purges } @pods;
	for ([ 'two scopes', [ 'X-Purge-All' => 'true', 'Surrogate-Key' => 'a' ], qr/only one of/ ],
		[ 'no flag', [ 'X-Purge-All' => 'yes please' ], qr/true or false/ ],
		[ 'no hash', [ 'X-Body-Hash' => 'abc' ], qr/64 hexadecimal digits/ ],
		[ 'two keys', [ ('X-Purge-Key' => '0' x 64) x 2 ], qr/there twice/ ],
		[ 'yes and no', [ 'X-Purge-All' => 'false', 'X-Purge-All' => 'true' ], qr/there twice/ ],
		[ 'another field', [ 'X-Purge-Tag' => 'a' ], qr/unknown X-Purge- field/ ],
		[ 'one mistyped', [ 'x-purge-al' => 'true' ], qr/unknown X-Purge- field/ ],
		[ 'no tag', [ 'Surrogate-Key' => '' ], qr/no tag/ ],
		[ 'store by path', [ 'X-Purge-Store' => 'true' ], qr/store can be purged of/ ],
		[ 'store by another tag', [ 'X-Purge-Store' => 'true', 'Surrogate-Key' => 'model:a b' ], qr/store can be purged of/ ],
		[ 'store by two tags', [ 'X-Purge-Store' => 'true', 'Surrogate-Key' => 'model:a model:b' ], qr/store can be purged of/ ],
		[ 'a time without the store', [ 'X-Purge-Time' => 5 ], qr/goes with/ ],
		[ 'no time', [ 'X-Purge-Time' => 'now', 'X-Purge-Store' => 'true', 'X-Purge-All' => 'true' ], qr/milliseconds/ ],
		[ 'a tag of other characters', [ 'Surrogate-Key' => "a caf\xe9" ], qr/visible ASCII/ ],
		[ 'a long tag', [ 'Surrogate-Key' => 'a ' . 'x' x 257 ], qr/at most 256 bytes/ ],
		[ 'too many tags', [ 'Surrogate-Key' => join ' ', 1 .. 33 ], qr/too many tags/ ]) {
		my ($what, $headers, $error) = @$_;
		my $r = purge('/', $headers);
		is $r->{status}, 400, $what;
		like $r->{json}{error}, $error, 'says why';
	}
	is purge('/', [], 'x' x 70_000)->{status}, 413, 'too large a body';
	is purge('/', [ map { ("X-$_" => 1) } 1 .. 100 ])->{status}, 431, 'too many fields';
	is purge('/' . 'x' x 20_000)->{status}, 414, 'too long a path';
	is scalar(map { $_->purges } @pods), $n, 'nobody was told';
};

subtest 'other methods' => sub {
	for my $method (qw(GET POST DELETE OPTIONS)) {
		my $r = http($method, $d->url . '/v1/models');
		is $r->{status}, 405, $method;
		is $r->{headers}{allow}, 'PURGE', 'Allow';
	}
	is http('GET', $d->url . "/$_")->{status}, 200, $_ for qw(healthz readyz metrics);
	is purge('/metrics')->{status}, 200, 'a path of that name can be purged';
};

subtest 'a target that fails' => sub {
	$pods[1]->mode(status => 500, body => '{"error":{"message":"no room"}}');
	$local->mode(status => 503, error => 'draining');
	my $r = purge('/', [ 'X-Purge-All' => 'true' ]);
	is $r->{status}, 502, 'status';
	is_deeply [ @{ $r->{json} }{qw(total success failed)} ], [ 4, 2, 2 ], 'counts';
	my ($bad) = grep { $_->{pod} eq $pods[1]->address } @{ $r->{json}{results} };
	is_deeply $bad, { pod => $pods[1]->address, status => 500, success => JSON::PP::false(),
		error => '500 Internal Server Error: no room' }, 'which and why';
	($bad) = grep { $_->{pod} eq 'gatewayd.0' } @{ $r->{json}{results} };
	is_deeply $bad, { pod => 'gatewayd.0', status => 503, success => JSON::PP::false(),
		error => '503 Service Unavailable: draining' }, 'the local one';
	$pods[1]->mode(status => 403, body => qq({"error":{"message":"Bearer $token is not it"}}));
	$local->mode;
	$r = purge('/');
	($bad) = grep { $_->{pod} eq $pods[1]->address } @{ $r->{json}{results} };
	is $bad->{error}, '403 Forbidden', 'a token that a target repeats is not passed on';
	$pods[1]->mode(raw => "HELLO\r\n\r\n");
	is purge('/')->{json}{failed}, 1, 'no HTTP';
	$pods[1]->mode(drop => JSON::PP::true());
	is purge('/')->{json}{failed}, 1, 'no answer';
	$pods[1]->mode;
	is purge('/')->{status}, 200, 'and well again';
};

subtest 'the token is in no log' => sub {
	$d->stop;
	unlike $d->log, qr/purge-token-that|of-the-caller/, 'nor the caller\'s';
	like $d->log, qr/"targets":4,"failed":0/, 'what was purged is';
};

done_testing;
