#!/usr/bin/env perl

# TTL and grace: what is stale is served at once and looked up again in the background.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $openai = fake_openai();
my $n = 0;
sub gateway { return daemon('gatewayd', http => 1, rpc => 'gatewayd.' . $n++ . '.sock', env => { OPENAI_BASE_URL => $openai->base, OPENAI_API_KEY => 'sk-own', @_ }) }
sub ask { my ($d, $input) = @_; return http_json($d->url . '/v1/embeddings', { input => $input, model => 'text-embedding-3-small', dimensions => 8 }) }
sub cache { return $_[0]{headers}{'x-cache'} }
sub metric { my ($d, $name) = @_; return http('GET', $d->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef }

subtest 'grace with a store' => sub {
	my $d = gateway(STORE_DIR => test_path('cache'), CACHE_TTL => '400ms', CACHE_GRACE => '1h');
	my $first = ask($d, [ 'a', 'b' ]);
	is cache($first), 'MISS', 'bought';
	is cache(ask($d, [ 'a', 'b' ])), 'HIT', 'fresh';
	wait_for { 2 == (my @p = glob test_path('cache') . '/embeddings/*') } 'both to be stored';
	my $stale = wait_for { my $r = ask($d, [ 'a', 'b' ]); cache($r) eq 'STALE' && $r } 'the TTL to end';
	is_deeply $stale->{json}, $first->{json}, 'stale is the same answer';
	is $stale->{headers}{'x-cache-hits'}, '2/2', 'and a hit';
	wait_for { metric($d, 'gatewayd_refreshes_total{result="found"}') >= 2 } 'both to be looked up again';
	is cache(ask($d, 'a')), 'HIT', 'fresh again';
	is $openai->calls, 1, 'nothing was bought';
	cmp_ok metric($d, 'gatewayd_requests_total{result="stale",status="200"}'), '>=', 1, 'counted';
};

subtest 'grace without a store' => sub {
	my $d = gateway(STORE => 'none', CACHE_TTL => '100ms', CACHE_GRACE => '1h');
	ask($d, 'c');
	my $calls = $openai->calls;
	wait_for { cache(ask($d, 'c')) eq 'STALE' } 'the TTL to end';
	is $openai->calls, $calls, 'served stale, not bought';
};

subtest 'no grace' => sub {
	my $d = gateway(STORE => 'none', CACHE_TTL => '100ms', CACHE_GRACE => '0');
	ask($d, 'd');
	my $calls = $openai->calls;
	wait_for { cache(ask($d, 'd')) eq 'MISS' } 'the TTL to end';
	is $openai->calls, $calls + 1, 'bought again';
};

subtest 'the object is gone from the store' => sub {
	my $d = gateway(STORE_DIR => test_path('gone'), CACHE_TTL => '300ms', CACHE_GRACE => '1h');
	ask($d, 'e');
	my $path = wait_for { my @p = glob test_path('gone') . '/embeddings/*'; $p[0] } 'the object';
	unlink $path or die;
	wait_for { cache(ask($d, 'e')) eq 'STALE' } 'the TTL to end';
	wait_for { metric($d, 'gatewayd_refreshes_total{result="failed"}') >= 1 } 'the look-up';
	is cache(ask($d, [ 'e' ])), 'STALE', 'still served';
};

done_testing;
