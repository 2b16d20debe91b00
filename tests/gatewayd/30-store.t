#!/usr/bin/env perl

# What was bought is there after a restart; mock vectors never meet real ones; the store is never in the way.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use File::Path qw(make_path);

my $openai = fake_openai();
my $cache = test_path('cache');
my $real = daemon('gatewayd', http => 1, rpc => 'real.sock', env => { OPENAI_BASE_URL => $openai->base, OPENAI_API_KEY => 'sk-own', STORE_DIR => $cache });
my $REQUEST = { input => 'kept for good', model => 'text-embedding-3-small' };

my $n = 0;
sub gateway { return daemon('gatewayd', http => 1, rpc => 'gatewayd.' . $n++ . '.sock', @_) }
sub ask { my ($d, $body) = @_; return http_json($d->url . '/v1/embeddings', $body // $REQUEST) }
sub stored { my @paths = glob "$cache/$_[0]embeddings/*.json.gz"; return @paths }

my $bought = ask($real);
is $bought->{headers}{'x-cache'}, 'MISS', 'bought with the own key';
is $openai->stats->{log}[0]{authorization}, 'Bearer sk-own', 'which the provider saw';

subtest 'restart' => sub {
	$real->restart;
	my $r = ask($real);
	is $r->{headers}{'x-cache'}, 'HIT', 'a hit from the store';
	is_deeply $r->{json}, $bought->{json}, 'the same answer';
	like $r->{headers}{age}, qr/^\d+$/, 'its age goes on';
	is $openai->calls, 1, 'not bought again';
	is scalar(my @all = stored('')), 1, 'one object';
	is_deeply [ glob "$cache/tmp/*" ], [], 'nothing left in tmp';
};

subtest 'killed' => sub {
	ask($real, { input => 'before the kill', model => 'text-embedding-3-small' });
	wait_for { 2 == (my @all = stored('')) } 'the second object';
	$real->kill9;
	$real->start;
	is ask($real, { input => 'before the kill', model => 'text-embedding-3-small' })->{headers}{'x-cache'}, 'HIT', 'still there';
};

subtest 'an object is what a provider answers' => sub {
	require Compress::Zlib;
	for (stored('')) {
		my $json = json_decode(Compress::Zlib::memGunzip(slurp($_)));
		is $json->{object}, 'list', 'zcat shows it';
		is $json->{model}, 'text-embedding-3-small', 'with its model';
		is scalar @{ $json->{data} }, 1, 'one embedding';
	}
};

subtest 'mock' => sub {
	for my $how ({ PROVIDER => 'mock' }, { OPENAI_API_KEY => 'your_openai_api_key_here' }) {
		my $text = { input => 'mocked ' . (%$how)[0], model => 'text-embedding-3-small' };
		my $mock = gateway(env => { %$how, STORE_DIR => $cache });
		my $r = ask($mock, $text);
		is $r->{headers}{'x-cache'}, 'MISS', 'made';
		is $r->{headers}{'x-embedding-provider'}, 'mock', 'and says by whom';
		my $own = { %$text, input => 'real ' . (%$how)[0] };
		my $calls = $openai->calls;
		ask($real, $own);
		is $openai->calls, $calls + 1, 'a real one';
		is ask($mock, $own)->{headers}{'x-cache'}, 'MISS', 'is not for the mock';
		$mock->restart;
		is ask($mock, $text)->{headers}{'x-cache'}, 'HIT', 'kept, too';
		like $mock->log, qr/"severitytext":"WARN".*mock/, 'with a warning at the start';
		$mock->stop;
		is ask($real, $text)->{headers}{'x-cache'}, 'MISS', 'mock vectors are not for the real one';
		is $openai->calls, $calls + 2, 'it buys';
	}
	is scalar(my @mocked = stored('mock/')), 4, 'under their own prefix';
};

subtest 'similar texts are near each other' => sub {
	my $mock = gateway(env => { PROVIDER => 'mock', STORE => 'none' });
	my $r = ask($mock, { model => 'text-embedding-3-small',
		input => [ 'the cat sat on the mat', 'a cat sat on a mat', 'quarterly revenue grew by nine percent' ] });
	my ($a, $b, $c) = map { $_->{embedding} } @{ $r->{json}{data} };
	my $dot = sub { my ($x, $y) = @_; my $s = 0; $s += $x->[$_] * $y->[$_] for 0 .. $#$x; return $s };
	cmp_ok abs($dot->($a, $a) - 1), '<', 1e-5, 'unit length';
	cmp_ok $dot->($a, $b), '>', 0.4, 'near: ' . $dot->($a, $b);
	cmp_ok abs $dot->($a, $c), '<', 0.3, 'far: ' . $dot->($a, $c);
};

subtest 'a corrupt object is bought again' => sub {
	my $text = { input => 'to be damaged', model => 'text-embedding-3-small' };
	my %before = map { $_ => 1 } stored('');
	ask($real, $text);
	my $path = wait_for { (grep { !$before{$_} } stored(''))[0] } 'the object';
	my $bytes = slurp($path);
	substr($bytes, length($bytes) / 2, 4) = 'XXXX';
	spew($path, $bytes);
	$real->restart;
	is ask($real, $text)->{headers}{'x-cache'}, 'MISS', 'a miss';
	like http('GET', $real->url . '/metrics')->{body}, qr/^gatewayd_store_look_ups_total\{store="dir",result="corrupt"\} 1$/m, 'counted';
	$real->restart;
	is ask($real, $text)->{headers}{'x-cache'}, 'HIT', 'and mended';
};

subtest 'STORE=none' => sub {
	my $none = gateway(env => { OPENAI_BASE_URL => $openai->base, OPENAI_API_KEY => 'sk-own', STORE => 'none' });
	is ask($none)->{headers}{'x-cache'}, 'MISS', 'bought';
	is ask($none)->{headers}{'x-cache'}, 'HIT', 'memory only';
	$none->restart;
	is ask($none)->{headers}{'x-cache'}, 'MISS', 'gone after a restart';
};

subtest 'scope' => sub {
	my $d = gateway(env => { OPENAI_BASE_URL => $openai->base, CACHE_SCOPE => 'per-key', STORE_DIR => test_path('scoped') });
	my $as = sub { return http_json($d->url . '/v1/embeddings', $REQUEST, [ Authorization => "Bearer $_[0]" ])->{headers}{'x-cache'} };
	is $as->('sk-a'), 'MISS', 'first of a';
	is $as->('sk-b'), 'MISS', 'b has its own';
	is $as->('sk-a'), 'HIT', 'a again';
	$d->restart;
	is $as->('sk-b'), 'HIT', 'in the store, too';
	is $as->('sk-c'), 'MISS', 'c';
};

done_testing;
