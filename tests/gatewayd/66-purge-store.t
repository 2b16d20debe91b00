#!/usr/bin/env perl

# Purges of the store by epochs: everything, a model, a key; pods that share it, learn late, or start later; a store that cannot be written.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Digest::SHA qw(sha256_hex);
use Time::HiRes ();

my $openai = fake_openai();
my $M = 'text-embedding-3-small';
my $TOKEN = 'store-purge-token';
my @KEY = ('Content-Type' => 'application/json', Authorization => 'Bearer sk-good');
my $STORE = test_path('store');
my $n = 0;

sub gateway
{
	my (%env) = @_;
	my $pod = 'pod' . $n++;
	mkdir test_path($pod);
	return daemon('gatewayd', http => 1, rpc => "$pod/gatewayd.0.sock",
		env => { OPENAI_BASE_URL => $openai->base, STORE => 'dir', STORE_DIR => $STORE, MAX_RETRIES => 0, PURGE_TOKEN => $TOKEN, PURGE_REREAD => '200ms',
			RUN_DIR => test_path($pod), %env });
}
sub ask
{
	my ($d, $input, %more) = @_;
	my $r = http('POST', $d->url . '/v1/embeddings', [@KEY], json_encode({ input => $input, model => $M, dimensions => 4, %more }));
	return $r->{headers}{'x-cache'} // "$r->{status} $r->{body}";
}
sub purge
{
	my ($d, @headers) = @_;
	my $r = http('PURGE', $d->url . '/', [ Authorization => "Bearer $TOKEN", @headers ]);
	$r->{json} = eval { json_decode($r->{body}) };
	return $r;
}
sub metric { my ($d, $name) = @_; return http('GET', $d->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef }
sub stored { my ($d, $puts) = @_; wait_for { (metric($d, 'gatewayd_store_puts_total{store="dir",result="stored"}') // 0) >= $puts } "$puts stored"; return }
sub key_of { my ($input, $model) = @_; return sha256_hex(qq({"dimensions": 4, "input": "$input", "model": ") . ($model // $M) . '"}') }
sub path_of { return "$STORE/embeddings/" . key_of(@_) . '.json.gz' }
sub later { return int(1000 * Time::HiRes::time()) + $_[0] }

my $d = gateway();
ask($d, $_) for 'one', 'two', 'three';
ask($d, 'other', model => 'fake-other');
stored($d, 4);

subtest 'memory only' => sub {
	is purge($d, 'X-Purge-All' => 'true')->{status}, 200, 'purged';
	is ask($d, 'one'), 'HIT', 'the store has it yet';
	ok !-e "$STORE/purges", 'no epoch';
};

subtest 'one embedding' => sub {
	my $r = purge($d, 'X-Purge-Key' => key_of('one'), 'X-Purge-Store' => 'true');
	is $r->{status}, 200, 'purged' or diag $r->{body};
	is_deeply [ map { $_->{pod} } @{ $r->{json}{results} } ], [ 'gatewayd.0', 'store' ], 'by the instance and in the store';
	my ($name) = map { s{.*/}{}r } glob("$STORE/purges/key.*");
	like $name, qr/^key\.@{[ key_of('one') ]}\.\d{13}\.json$/, 'an epoch';
	like slurp("$STORE/purges/$name"), qr/^\{"scope":"key","value":"@{[ key_of('one') ]}","time_ms":\d{13}\}$/, 'that people can read';
	is ask($d, 'one'), 'MISS', 'bought again';
	is ask($d, 'two'), 'HIT', 'no other';
	is metric($d, 'gatewayd_store_purged_total{store="dir"}'), 1, 'counted';
	is metric($d, 'gatewayd_store_epochs'), 1, 'one epoch';
	# What is bought within five seconds after a purge counts as older in the store.
	stored($d, 5);
	purge($d, 'X-Purge-All' => 'true');
	is ask($d, 'one'), 'MISS', 'the clocks of others may be five seconds behind';
};

subtest 'a pod that starts later' => sub {
	my $late = gateway();
	is ask($late, 'one'), 'MISS', 'sees the epoch before its first look-up';
	is ask($late, 'two'), 'HIT', 'and no other object is harmed';
	$late->stop;
};

subtest 'a model, in a pod that the purge did not reach' => sub {
	my $far = gateway();
	is ask($far, 'other', model => 'fake-other'), 'HIT', 'in its memory now';
	is ask($far, 'two'), 'HIT', 'this one too';
	is purge($d, 'Surrogate-Key' => 'model:fake-other', 'X-Purge-Store' => '1')->{status}, 200, 'purged elsewhere';
	wait_for { ask($far, 'other', model => 'fake-other') eq 'MISS' } 'it reads the epoch, and purges its memory';
	is ask($far, 'two'), 'HIT', 'of this model alone';
	like $far->log, qr/"by":"store"/, 'a log line';
	$far->stop;
};

subtest 'deleted when found' => sub {
	ok -e path_of('three'), 'stored';
	purge($d, 'X-Purge-Key' => key_of('three'), 'X-Purge-Store' => 'true');
	ok -e path_of('three'), 'it still lies there';
	$openai->mode(fault => 'status', status => 500);
	is ask($d, 'three'), 'MISS', 'but counts as missing';
	wait_for { !-e path_of('three') } 'gone when it was looked up';
	$openai->mode;
};

subtest 'everything, and what it covers' => sub {
	my $r = purge($d, 'X-Purge-All' => 'true', 'X-Purge-Store' => 'true', 'X-Purge-Time' => later(-60_000));
	is $r->{status}, 200, 'of a minute ago';
	is ask($d, 'two'), 'HIT', 'covers nothing of today';
	$r = purge($d, 'X-Purge-All' => 'true', 'X-Purge-Store' => 'true', 'X-Purge-Time' => later(3_600_000));
	is $r->{status}, 200, 'of the future';
	my ($ms) = sort { $b <=> $a } map { /all\.(\d+)\.json/ } glob("$STORE/purges/all.*");
	cmp_ok $ms, '<=', later(0), 'is one of now';
	is ask($d, $_), 'MISS', "$_ is bought again" for 'one', 'two';
	wait_for { my @left = glob("$STORE/purges/*"); @left == 1 } 'one epoch is left: it covers the others';
	$d->restart;
	is ask($d, 'two'), 'MISS', 'over a restart';
};

subtest 'two instances' => sub {
	my $dir = test_path('pair');
	mkdir $dir;
	my @pair = map { daemon('gatewayd', http => 1, rpc => "pair/gatewayd.$_.sock", env => { OPENAI_BASE_URL => $openai->base, STORE => 'dir',
		STORE_DIR => test_path('pair-store'), PURGE_TOKEN => $TOKEN, RUN_DIR => $dir, GATEWAYD_INSTANCE => $_, GATEWAYD_INSTANCES => 2, PURGE_REREAD => '1h' }) } 0, 1;
	ask($_, [ map { "pair $_" } 1 .. 10 ]) for @pair;
	my $stored = 0;
	wait_for { $stored = () = glob(test_path('pair-store/embeddings/*')); $stored == 10 } 'stored';
	my $r = purge($pair[0], 'Surrogate-Key' => "model:$M", 'X-Purge-Store' => 'true');
	is "$r->{json}{success} of $r->{json}{total}", '3 of 3', 'both and the store';
	is scalar(my @e = glob(test_path('pair-store/purges/*'))), 1, 'one epoch';
	is ask($pair[1], [ map { "pair $_" } 1 .. 10 ]), 'MISS', 'the other one knows it';
	$_->stop for @pair;
};

subtest 'a store that cannot be written' => sub {
	system "rm -rf $STORE/purges";
	spew("$STORE/purges", 'a file where a directory should be');
	my $r = purge($d, 'X-Purge-All' => 'true', 'X-Purge-Store' => 'true');
	is $r->{status}, 502, 'a failure';
	is_deeply [ map { $_->{success} ? 1 : 0 } @{ $r->{json}{results} } ], [ 1, 0 ], 'of the store alone';
	like $r->{json}{results}[1]{error}, qr/purges/, 'with its reason';
	unlink "$STORE/purges";
	is purge($d, 'X-Purge-All' => 'true', 'X-Purge-Store' => 'true')->{status}, 200, 'the next one succeeds';
	my $none = daemon('gatewayd', http => 1, rpc => 'none.sock', env => { PROVIDER => 'mock', STORE => 'none', PURGE_TOKEN => $TOKEN });
	is purge($none, 'X-Purge-All' => 'true', 'X-Purge-Store' => 'true')->{status}, 400, 'no store';
};

done_testing;
