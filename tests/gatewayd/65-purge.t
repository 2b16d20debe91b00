#!/usr/bin/env perl

# Purges of one pod of two instances, over HTTP and RPC: by path, tag, model, body hash, element key and of everything; who may; flights.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Digest::SHA qw(sha256_hex);

my $openai = fake_openai();
my $M = 'text-embedding-3-small';
my $TOKEN = 'purge-me-0123456789';
my @KEY = ('Content-Type' => 'application/json', Authorization => 'Bearer sk-good');

sub instances
{
	my ($n, %env) = @_;
	return map { daemon('gatewayd', http => 1, rpc => "gatewayd.$_.sock",
		env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', MAX_RETRIES => 0, PURGE_TOKEN => $TOKEN,
			GATEWAYD_INSTANCE => $_, GATEWAYD_INSTANCES => $n, %env }) } 0 .. $n - 1;
}
my @d = instances(2);

sub body_of { my ($input, %more) = @_; return json_encode({ input => $input, model => $M, dimensions => 4, %more }) }
sub ask
{
	my ($d, $input, %o) = @_;
	my $r = http('POST', $d->url . ($o{path} // '/v1/embeddings'), [ @KEY, @{ $o{headers} // [] } ], body_of($input, %{ $o{body} // {} }));
	$r->{json} = eval { json_decode($r->{body}) };
	return $r;
}
sub hit { return ask(@_)->{headers}{'x-cache'} }
sub purge
{
	my ($d, $path, @headers) = @_;
	my $r = http('PURGE', $d->url . $path, [ Authorization => "Bearer $TOKEN", @headers ]);
	$r->{json} = eval { json_decode($r->{body}) };
	return $r;
}
sub objects
{
	my ($d) = @_;
	my $sum = 0;
	$sum += $_ for http('GET', $d->url . '/metrics')->{body} =~ /^gatewayd_cache_objects\{[^}]*\} (\d+)$/mg;
	return $sum;
}
sub element_key { my ($input) = @_; return sha256_hex(qq({"dimensions": 4, "input": "$input", "model": "$M"})) }

subtest 'everything' => sub {
	ask($d[0], [ map { "all $_" } 1 .. 20 ]);
	ask($d[1], [ map { "all $_" } 1 .. 20 ]);
	my $there = objects($d[0]) + objects($d[1]);
	cmp_ok $there, '>=', 30, "$there objects";
	my $r = purge($d[0], '/', 'X-Purge-All' => 'true');
	is $r->{status}, 200, 'purged' or diag $r->{body};
	is $r->{json}{purged}, $there, 'says how many, of both';
	is_deeply [ map { "$_->{pod} $_->{status} " . ($_->{success} ? 'yes' : 'no') . ' ' . ($_->{error} // '-') } @{ $r->{json}{results} } ],
		[ 'gatewayd.0 200 yes -', 'gatewayd.1 200 yes -' ], 'and who did it';
	is "$r->{json}{total} $r->{json}{success} $r->{json}{failed}", '2 2 0', 'sums';
	like $r->{headers}{'x-instance-id'}, qr/^[0-9a-f]{32}$/, 'X-Instance-Id';
	isnt purge($d[1], '/')->{headers}{'x-instance-id'}, $r->{headers}{'x-instance-id'}, 'another one of the other instance';
	is objects($d[$_]), 0, "nothing left in $_" for 0, 1;
	is hit($d[0], 'all 1'), 'MISS', 'bought again';
};

subtest 'path' => sub {
	# A whole answer is kept when its elements were in memory already.
	ask($_, 'path', path => '/v1/embeddings?a=1') for @d, @d;
	ask($_, 'path', path => '/v1/embeddings?a=2') for @d;
	is purge($d[0], '/v1/embeddings?a=1')->{json}{purged}, 2, 'whole answers with this query, in both';
	is purge($d[0], '/v1/embeddings?a=1')->{json}{purged}, 0, 'once';
	is hit($d[0], 'path', path => '/v1/embeddings?a=1'), 'HIT', 'the embedding is an object of the path without a query';
	is purge($d[0], '/v1/nothing')->{json}{purged}, 0, 'nothing there';
	cmp_ok purge($d[1], '/openai/v1/embeddings')->{json}{purged}, '>=', 2, 'single embeddings are objects of both paths';
	is hit($d[0], 'path', path => '/v1/embeddings?a=2'), 'MISS', 'and take the whole answers along that have them';
};

subtest 'tags' => sub {
	ask($d[0], [ 'tagged 1', 'tagged 2' ], headers => [ 'Surrogate-Key' => 'red  green' ]);
	ask($d[1], [ 'tagged 3', 'tagged 1' ], headers => [ 'Surrogate-Key' => "blue\tgreen" ]);
	my $plain = ask($d[0], [ 'tagged 1', 'untagged' ]);
	is $plain->{headers}{'surrogate-key'}, undef, 'not shown to clients';
	ask($d[0], 'untagged');
	is purge($d[0], '/', 'Surrogate-Key' => 'no-such-tag')->{json}{purged}, 0, 'a tag that nothing has';
	cmp_ok purge($d[1], '/', 'Surrogate-Key' => 'yellow red')->{json}{purged}, '>=', 3, 'any of them';
	is ask($d[1], [ 'tagged 1', 'untagged' ])->{headers}{'x-cache-hits'}, '1/2', 'what was tagged is gone, with the answer that had it';
	is hit($d[1], 'tagged 3'), 'HIT', 'what was not stays';
	purge($d[0], '/', 'Surrogate-Key' => 'green');
	is hit($_, 'tagged 3'), 'MISS', 'the other tag, in both' for $d[0];
	ask($d[0], [ 'tagged 4', 'tagged 5' ], headers => [ 'Surrogate-Key' => 'violet' ]);
	is purge($d[0], '/', 'Surrogate-Key' => 'no-such-tag', 'surrogate-key' => 'violet')->{status}, 200, 'tags in two fields';
	is ask($d[0], [ 'tagged 4', 'tagged 5' ])->{headers}{'x-cache'}, 'MISS', 'both count';
};

subtest 'tags of an answer' => sub {
	my $split = daemon('gatewayd', http => 1, rpc => 'split.sock', env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', PURGE_TOKEN => $TOKEN });
	my @texts = map { "answered $_" } 1 .. 5;
	for my $pod ([@d], [$split]) {
		my $d = $pod->[0];
		$openai->mode(headers => { 'Surrogate-Key' => 'theirs  both' }, $d == $split ? (max_inputs => 2) : ());
		is ask($d, \@texts, headers => [ 'Surrogate-Key' => 'ours both' ])->{headers}{'surrogate-key'}, undef, 'not shown';
		$openai->mode;
		is ask($_, \@texts)->{headers}{'x-cache'}, 'HIT', 'kept' for @$pod;
		purge($d, '/', 'Surrogate-Key' => 'theirs');
		is ask($pod->[-1], \@texts, headers => [ 'Surrogate-Key' => 'ours' ])->{headers}{'x-cache-hits'}, '0/5', "the provider's counts";
		$openai->mode(headers => { 'Surrogate-Key' => 'theirs' });
		ask($d, 'once more', headers => [ 'Surrogate-Key' => 'ours' ]);
		purge($d, '/', 'Surrogate-Key' => 'ours');
		is hit($d, 'once more'), 'MISS', "and so does the client's";
		$openai->mode(headers => { 'Surrogate-Key' => join ' ', 1 .. 33 });
		for (1, 2) { is hit($d, 'too many'), 'MISS', 'with too many nothing is kept in memory' }
		$openai->mode;
	}
	$split->stop;
};

subtest 'model' => sub {
	ask($d[0], 'by model');
	ask($d[0], 'by model', body => { model => 'fake-other' });
	purge($d[1], '/', 'Surrogate-Key' => 'model:fake-other');
	is hit($d[0], 'by model'), 'HIT', 'one model stays';
	is hit($d[0], 'by model', body => { model => 'fake-other' }), 'MISS', 'the other goes';
};

subtest 'body hash' => sub {
	ask($_, 'hashed') for @d, @d;
	is purge($d[0], '/', 'X-Body-Hash' => uc sha256_hex(body_of('hashed')))->{json}{purged}, 2, 'the answer to one body, in both';
	my $before = $openai->calls;
	is hit($d[0], 'hashed'), 'HIT', 'made again from its embedding';
	is $openai->calls, $before, 'not bought';
	is hit($d[0], 'hashed'), 'HIT', 'and kept again';
	is purge($d[0], '/', 'X-Body-Hash' => sha256_hex(body_of('hashed')))->{json}{purged}, 1, 'so it was';
};

subtest 'element key' => sub {
	ask($_, [ 'keyed', 'beside' ]) for @d, @d;
	ask($_, 'keyed') for @d;
	my $r = purge($d[0], '/', 'X-Purge-Key' => element_key('keyed'));
	is $r->{json}{purged}, 6, 'the embedding in both, and the answers that have it';
	is ask($d[0], [ 'keyed', 'beside' ])->{headers}{'x-cache-hits'}, '1/2', 'bought again, alone';
};

subtest 'large answers and many objects' => sub {
	my @texts = map { "many $_" } 1 .. 3000;
	ask($d[0], [ @texts[ 0 .. 1499 ] ], headers => [ 'Surrogate-Key' => 'many' ]);
	ask($d[0], [ @texts[ 1500 .. 2999 ] ], headers => [ 'Surrogate-Key' => 'many' ]);
	cmp_ok purge($d[0], '/', 'Surrogate-Key' => 'many')->{json}{purged}, '>=', 3000, 'in slices';
	is ask($d[0], [ @texts[ 1 .. 100 ] ])->{headers}{'x-cache-hits'}, '0/100', 'all gone, at the owner too';
};

subtest 'while it is bought' => sub {
	$openai->reset;
	$openai->mode(hold => JSON::PP::true);
	my $held = EG::HTTP->new($d[0]->url);
	$held->send(EG::HTTP::format_request('POST', '/v1/embeddings', [@KEY], body_of('in flight', user => 'one')));
	$openai->wait(calls => 1);
	is purge($d[1], '/', 'X-Purge-Key' => element_key('in flight'))->{json}{purged}, 0, 'nothing there yet';
	# Who asks after the purge must not get what was asked for before it.
	my $after = EG::HTTP->new($d[1]->url);
	$after->send(EG::HTTP::format_request('POST', '/v1/embeddings', [@KEY], body_of('in flight', user => 'two')));
	$openai->wait(calls => 2);
	$openai->release;
	is $held->response->{status}, 200, 'the one who asked before is answered';
	is $after->response->{headers}{'x-cache'}, 'MISS', 'the one who asked after has it bought anew';
	is $openai->calls, 2, 'two calls';
	is hit($_, 'in flight', body => { user => 'one' }), 'HIT', 'only what was asked for after the purge was kept' for @d;
	for my $what ([ 'X-Purge-All' => 'true' ], [ 'Surrogate-Key' => "model:$M" ], [ 'Surrogate-Key' => 't' ], '/v1/embeddings') {
		my $name = ref $what ? "@$what" : $what;
		$openai->mode(hold => JSON::PP::true);
		my $calls = $openai->calls;
		my $c = EG::HTTP->new($d[0]->url);
		$c->send(EG::HTTP::format_request('POST', '/v1/embeddings', [ @KEY, 'Surrogate-Key' => 't' ], body_of("flying: $name")));
		$openai->wait(calls => $calls + 1);
		is ref $what ? purge($d[0], '/', @$what)->{status} : purge($d[0], $what)->{status}, 200, $name;
		$openai->release;
		is $c->response->{status}, 200, 'answered';
		is hit($_, "flying: $name"), 'MISS', 'not kept' for $d[0];
	}
};

subtest 'RPC' => sub {
	ask($d[0], 'by rpc', headers => [ 'Surrogate-Key' => 'rpc' ]) for 1, 2;
	my $rpc = $d[1]->rpc;
	my ($status, $error, $purged, $results) = @{ $rpc->call('purge', [ 'tag', ['rpc'], JSON::PP::false(), $TOKEN ]) };
	is $status, 200, 'purged';
	is $error, '', 'no error';
	cmp_ok $purged, '>=', 2, 'in both';
	is_deeply [ map { [ @$_[ 0, 1, 3 ] ] } @$results ], [ [ 'gatewayd.0', 200, '' ], [ 'gatewayd.1', 200, '' ] ], 'results';
	($status, $error) = @{ $rpc->call('purge', [ 'all', [], JSON::PP::false(), 'wrong' ]) };
	is $status, 403, 'wrong token';
	for my $bad ([ 'everything', [] ], [ 'all', ['x'] ], [ 'path', ['x'] ], [ 'path', [] ], [ 'tag', [] ], [ 'tag', ['a b'] ], [ 'tag', [''] ],
		[ 'key', ['00'] ], [ 'body_hash', [ 'g' x 64 ] ], [ 'tag', [ map { "t$_" } 1 .. 33 ] ]) {
		($status, $error) = @{ $rpc->call('purge', [ @$bad, JSON::PP::false(), $TOKEN ]) };
		is $status, 400, "$bad->[0] @{ $bad->[1] }: $error";
	}
	is_deeply [ @{ $rpc->call('purge', [ 'all', [], JSON::PP::false(), $TOKEN, 0, JSON::PP::true() ])->[3] }[0]->[0] ], ['gatewayd.1'], 'one alone';
};

subtest 'what cannot be' => sub {
	my $H = '0' x 64;
	for my $bad ([ 'X-Purge-All' => 'perhaps' ], [ 'X-Purge-All' => 'true', 'Surrogate-Key' => 'a' ], [ 'Surrogate-Key' => ' ' ], [ 'X-Purge-Key' => 'abc' ],
		[ 'X-Body-Hash' => 'z' x 64 ], [ 'X-Purge-Store' => 'true' ], [ 'X-Purge-Store' => 'true', 'Surrogate-Key' => 'a' ],
		[ 'X-Purge-Store' => 'true', 'Surrogate-Key' => 'model:' ], [ 'X-Purge-Store' => 'maybe' ], [ 'X-Purge-Time' => '5' ],
		[ 'X-Purge-Store' => 'true', 'X-Body-Hash' => $H ], [ 'X-Purge-Store' => 'true', 'X-Purge-All' => 1, 'X-Purge-Time' => '-5' ],
		[ 'X-Purge-Tag' => 'a' ], [ 'x-purge-al' => 'true' ], [ 'X-Purge-' . 'y' x 300 => 1, 'X-Purge-All' => 'true' ], [ ('X-Purge-Key' => $H) x 2 ],
		[ ('Surrogate-Key' => join(' ', 1 .. 20)), 'surrogate-key' => join(' ', 21 .. 40) ], [ 'X-Purge-All' => 'false', 'X-Purge-All' => 'true' ],
		[ Authorization => "Bearer $TOKEN" ], # a second one
		[ 'Surrogate-Key' => join ' ', 1 .. 33 ], [ 'Surrogate-Key' => 'x' x 257 ], [ 'Surrogate-Key' => "caf\xc3\xa9" ]) {
		my $r = purge($d[0], '/', @$bad);
		is $r->{status}, 400, substr("@$bad: " . ($r->{json}{error}{message} // $r->{body}), 0, 150);
		like $r->{json}{error}{message}, qr/^\Q$bad->[0]\E: there is no such field/, 'named' if $bad->[0] =~ /^x-purge-(tag|al)$/i;
	}
	is purge($d[0], '/', 'Surrogate-Key' => join ' ', map { $_ . 'x' x 250 } 10 .. 41)->{status}, 200, '32 long tags';
	my $r = ask($d[0], 'x', headers => [ 'Surrogate-Key' => 'x' x 257 ]);
	is $r->{status}, 400, 'a client with a tag that is too long';
	is $r->{json}{error}{code}, 'bad_surrogate_key', 'is told';
};

subtest 'who may' => sub {
	ask($d[0], 'guarded');
	for my $auth ([], [ Authorization => 'Bearer wrong' ], [ Authorization => $TOKEN ], [ Authorization => 'Bearer sk-good' ], [ Authorization => "Bearer $TOKEN " . 'x' ]) {
		my $r = http('PURGE', $d[0]->url . '/', [ @$auth, 'X-Purge-All' => 'true' ]);
		is $r->{status}, 403, "@$auth";
		is json_decode($r->{body})->{error}{code}, 'purge_forbidden', 'says why';
	}
	is hit($d[0], 'guarded'), 'HIT', 'nothing was purged';
	$d[0]->wait_log(qr/a purge was refused/);
	my $none = daemon('gatewayd', http => 1, rpc => 'none.sock', env => { PROVIDER => 'mock', STORE => 'none' });
	ask($none, 'guarded');
	my $r = http('PURGE', $none->url . '/', [ Authorization => 'Bearer ', 'X-Purge-All' => 'true' ]);
	is $r->{status}, 403, 'without a token nobody may over HTTP';
	like $r->{body}, qr/PURGE_TOKEN/, 'which it says';
	$none->wait_log(qr/a purge was refused.*PURGE_TOKEN/);
	is hit($none, 'guarded'), 'HIT', 'nothing was purged';
	is $none->rpc->call('purge', [ 'all', [], JSON::PP::false(), '' ])->[0], 200, 'over RPC the own user may';
	is hit($none, 'guarded'), 'MISS', 'and did';
	spew(test_path('token'), "from-a-file\n");
	my $file = daemon('gatewayd', http => 1, rpc => 'file.sock', env => { PROVIDER => 'mock', STORE => 'none', PURGE_TOKEN_FILE => test_path('token') });
	is http('PURGE', $file->url . '/', [ Authorization => 'bearer from-a-file' ])->{status}, 200, 'a token from a file';
	unlike $_->log, qr/\Q$TOKEN\E|from-a-file/, 'the token is in no log' for @d, $none, $file;
};

subtest 'an instance is away' => sub {
	ask($d[0], 'half');
	$d[1]->signal('STOP');
	my $id = fork // die;
	if (!$id) {
		# The harness's cleaning up is the parent's.
		my $r = purge($d[0], '/', 'X-Purge-All' => 'true');
		require POSIX;
		POSIX::_exit($r->{status} == 502 && $r->{json}{failed} == 1 && !$r->{json}{results}[1]{success} ? 0 : 1);
	}
	waitpid $id, 0;
	is $?, 0, 'one that hangs has failed: 502';
	$d[1]->signal('CONT');
	is hit($d[0], 'half', body => { user => 'x' }), 'MISS', 'what could be purged was';
	mkdir test_path('apart');
	my $alone = daemon('gatewayd', http => 1, rpc => 'apart/gatewayd.0.sock', env => { PROVIDER => 'mock', STORE => 'none', PURGE_TOKEN => $TOKEN,
		GATEWAYD_INSTANCES => 2, RUN_DIR => test_path('apart') });
	my $r = purge($alone, '/', 'X-Purge-All' => 'true');
	is $r->{status}, 200, 'one that is not running has nothing to purge';
	like $r->{json}{results}[1]{error}, qr/not running/, 'which is said';
};

done_testing;
