#!/usr/bin/env perl

# cachectl and what it must not copy: what was purged from the store, what is damaged, what is no store.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Compress::Zlib ();
use File::Path qw(make_path);

my $MODEL = 'text-embedding-3-small';
my $TOKEN = 'purge-token';
my $openai = fake_openai();
my $store = test_path('store');
my $d = daemon('gatewayd', http => 1, rpc => 'gatewayd.0.sock',
	env => { OPENAI_BASE_URL => $openai->base, OPENAI_API_KEY => 'sk-own', STORE => 'dir', STORE_DIR => $store, PURGE_TOKEN => $TOKEN, RUN_DIR => test_path('') });

# Exit code, standard output, standard error.
sub ctl { return run_tool({ BROADCASTERD_TOKEN => $TOKEN }, 'cachectl', @_) }
sub json { my ($code, $out, $err) = ctl(@_, '--json'); my $j = eval { json_decode($out) } // {}; $j->{exit} = $code; $j->{err} = $err; return $j }
sub ask { my ($model, @texts) = @_; return http_json($d->url . '/v1/embeddings', { input => \@texts, model => $model, dimensions => 4 })->{headers}{'x-cache'} }
sub objects { my ($dir) = @_; return scalar(my @all = glob "$dir/embeddings/*") }

ask($MODEL, qw(one two three));
ask('fake-other', qw(four five));
wait_for { objects($store) == 5 } 'five objects';
# A batch of the Python gateway, in each of its layouts.
my $answer = '{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1.0,%s]}],"model":"fake-other","usage":{"prompt_tokens":1,"total_tokens":1}}';
my $legacy = Compress::Zlib::memGzip(sprintf $answer, '2.0');
my ($flat, $hashed) = ('a' x 64, 'b' x 64);
sub put_legacy { my ($dir, $bytes) = @_; spew("$dir/embeddings/$flat.json.gz", $bytes); make_path("$dir/bbbb"); spew("$dir/bbbb/$hashed", $bytes); return }
put_legacy($store, $legacy);
my $before = test_path('before');
is json('export', $before, '--store', $store)->{copied}, 7, 'a copy of all, before any purge';
my $old = test_path('old');
my $batch = { input => [ 'six', 'seven' ], model => $MODEL, dimensions => 4 };
{
	my $kept = http_json($openai->base . '/embeddings', $batch, [ Authorization => 'Bearer sk-x' ])->{json};
	my $lines = spew(test_path('lines'), json_encode({ body => json_encode($batch), answer => $kept }) . "\n");
	system "/usr/bin/python3 '@{[ eg_root() ]}/tests/lib/legacy_store' hashed '$old' < '$lines' >/dev/null";
}

subtest 'a model is purged' => sub {
	my ($code, $out, $err) = ctl('purge', '--store', '--model=fake-other', '--url', $d->url);
	is $code, 0, 'purged' or diag $err;
	my $r = json('verify', '--store', $store);
	is "$r->{exit} $r->{good} $r->{legacy} $r->{purged} $r->{bad} $r->{other_files}", '0 3 0 4 0 0', 'verify counts them apart';
	$r = json('export', test_path('model'), '--store', $store);
	is "$r->{exit} $r->{copied} $r->{purged}", '0 3 4', 'export leaves them out';
	is objects(test_path('model')), 3, 'they are not there';
	($code, $out, $err) = ctl('export', '-', '--store', $store);
	is_deeply [ map { json_decode($_)->{model} } split /\n/, $out ], [ ($MODEL) x 3 ], 'nor as lines';
	like $err, qr/, 2 left out, 2 purged, 0 bad/, 'and says so';
	$r = json('export', '-', '--store', $store, '--model=fake-other');
	like $r->{err}, qr/"copied":0,.*"purged":2,/, 'nor by name';
	$r = json('import', $store, '--store', test_path('import'));
	is "$r->{exit} $r->{copied} $r->{purged}", '0 3 4', 'import leaves them out';
	my $requests = spew(test_path('requests'), json_encode({ input => 'four', model => 'fake-other', dimensions => 4 }) . "\n");
	$r = json('verify', '--store', $store, '--requests', $requests);
	is "$r->{requests}{present} $r->{requests}{missing}", '0 1', 'a request finds it missing, as it does at the gateway';
};

subtest 'everything is purged' => sub {
	my ($code, $out, $err) = ctl('purge', '--store', '--all', '--url', $d->url);
	is $code, 0, 'purged' or diag $err;
	my $r = json('verify', '--store', $store);
	is "$r->{exit} $r->{good} $r->{purged} $r->{embeddings}", '0 0 7 0', 'nothing is left';
	($code, $out) = ctl('verify', '--store', $store);
	like $out, qr/, 7 purged, 0 bad$/m, 'for people';
	$r = json('export', test_path('all'), '--store', $store);
	is "$r->{exit} $r->{copied} $r->{purged}", '0 0 7', 'export';
	$r = json('import', $before, '--store', $store, '--overwrite');
	is "$r->{exit} $r->{copied} $r->{purged}", '0 0 7', 'a copy from before is not brought back';
	my $requests = spew(test_path('batches'), json_encode($batch) . "\n");
	$r = json('import', $old, '--store', $store, '--requests', $requests);
	is "$r->{exit} $r->{copied} $r->{purged} $r->{elements} $r->{purged_elements}", '0 0 1 0 2', 'nor from a batch that is taken apart' or diag $r->{err};
	$r = json('import', $old, '--store', test_path('apart'), '--requests', $requests);
	is "$r->{exit} $r->{copied} $r->{elements} $r->{purged_elements}", '0 1 2 0', 'but into a store without that purge';
	is scalar(my @epochs = glob "$store/purges/*"), 2, 'cachectl deletes no epoch, not even a covered one';
	$d->stop;
};

subtest 'what is damaged is not copied' => sub {
	my $damaged = test_path('damaged');
	make_path("$damaged/embeddings");
	put_legacy($damaged, Compress::Zlib::memGzip(sprintf $answer, 'null'));
	spew("$damaged/embeddings/zzz.json.gz", $legacy);
	for my $command ([ 'verify', '--store', $damaged ], [ 'import', $damaged, '--store', test_path('i') ], [ 'export', test_path('e'), '--store', $damaged ]) {
		my $r = json(@$command);
		is "$r->{exit} $r->{bad} " . ($r->{copied} // 0), '1 3 0', "$command->[0]: three are bad";
		my $named = $command->[0] eq 'verify' ? join(' ', map { $_->{name} } @{ $r->{problems} }) : $r->{err};
		like $named, qr/\Q$_\E/, "$_ is named" for "embeddings/$flat.json.gz", "bbbb/$hashed", 'embeddings/zzz.json.gz';
	}
	my $requests = spew(test_path('requests'), "nonsense\n");
	my $r = json('verify', '--store', $before, '--requests', $requests);
	is "$r->{exit} $r->{bad} $r->{requests}{bad}", '1 0 1', 'a line that is no request is no bad object';
	like $r->{problems}[0]{name}, qr/line 1 of the requests/, 'and named';
	$r = json('import', $before, '--store', test_path('i'), '--requests', $requests);
	is "$r->{exit} $r->{bad} $r->{bad_requests}", '1 0 1', 'nor for import';
};

subtest 'what is no store' => sub {
	my $lines = test_path('export.jsonl');
	ctl('export', $lines, '--store', $before);
	my $kept = slurp($lines);
	make_path(test_path('empty'));
	for my $case ([ $lines, 66, qr/is a file/ ], [ "$before/embeddings", 66, qr/nothing there looks like a store: 6 files/ ], [ test_path('nowhere'), 69, qr/No such file/ ]) {
		my ($source, $exit, $reason) = @$case;
		for my $command ([ 'verify', '--store', $source ], [ 'import', $source, '--store', test_path('i') ], [ 'export', test_path('e'), '--store', $source ]) {
			my ($code, $out, $err) = ctl(@$command);
			is "$code $out", "$exit ", "@$command[0, 1]";
			like $err, $reason, 'with a reason';
		}
	}
	ctl('export', $lines, '--store', test_path('nowhere'));
	is slurp($lines), $kept, 'an export is not emptied for a store that is not there';
	my $r = json('verify', '--store', test_path('empty'));
	is "$r->{exit} $r->{objects}", '0 0', 'an empty directory is an empty store';
};

done_testing;
