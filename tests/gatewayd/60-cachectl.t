#!/usr/bin/env perl

# cachectl: fills, checks and moves the cache.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Compress::Zlib ();
use File::Path qw(make_path);

my $MODEL = 'text-embedding-3-small';
my $openai = fake_openai();
my $store = test_path('store');
my $d = daemon('gatewayd', http => 1, env => { OPENAI_BASE_URL => $openai->base, STORE_DIR => $store, TOKEN_PRICES => "$MODEL=20" });

# Exit code, standard output, standard error.
sub ctl { my ($env, @args) = ref $_[0] ? @_ : ({}, @_); return run_tool($env, 'cachectl', @args) }
sub json { my ($code, $out, $err) = ctl(@_, '--json'); my $j = eval { json_decode($out) } // {}; $j->{exit} = $code; $j->{err} = $err; return $j }
sub stored { my ($n) = @_; return wait_for { $n == (my @all = glob "$store/embeddings/*.json.gz") } "$n objects" }

my @warm = ({ OPENAI_API_KEY => 'sk-warm' }, 'warm', '--url', $d->url);

subtest 'usage' => sub {
	for my $case ([ 'status' ], [], [ 'warm' ], [ 'stats', 'x' ], [ 'verify', '--parallel=0' ], [ 'verify', '--parallel=x' ], [ '--nonsense' ],
		[ 'verify', '--batch=3' ], (map { ([ 'warm', '/dev/null', "--url=$_" ], [ 'stats', "--url=$_" ], [ 'purge', '--all', "--url=$_" ]) } 'ftp://x', 'http://', 'localhost:8080'),
		[ 'stats', '--url=http://127.0.0.1:1,ftp://x' ], map { [ 'purge', '--store', @$_ ] } [ '--tag=x' ], [ '--model=a', '--model=b' ], [ '--body-hash=' . 'a' x 64 ], [ '/v1/models' ]) {
		my ($code, $out, $err) = ctl(@$case);
		is $code, 64, "@$case";
		is $out, '', 'nothing on standard output';
		unlike $err, qr/cachectl: .*cachectl: /, 'said once';
		like $err, qr/cachectl/, 'a sentence';
	}
	is +(ctl('warm', test_path('not-there.jsonl')))[0], 66, 'no such file';
	my ($code, $out) = ctl('--help');
	is $code, 0, 'help';
	like $out, qr/warm FILE\.jsonl/, 'with the commands';
	is +(ctl('--version'))[0], 0, 'version';
	for my $command (qw(warm verify import export stats purge)) {
		($code, $out) = ctl($command, '--help');
		is $code, 0, "$command --help";
		like $out, qr/^Usage: cachectl .*\b$command\b/, 'tells of it';
		unlike $out, qr/^Commands/m, 'and of no other';
	}
	($code, $out) = ctl('verify', '--help');
	like $out, qr/--requests=FILE +keys, too/, 'its options';
	unlike $out, qr/--batch|take the answers/, 'not those of others';
	like +(ctl('purge', '--store', '--tag=x'))[2], qr/--store takes --all, one --model or --key/, 'purge names options, no header fields';
	like +(ctl('verify', '--batch=3'))[2], qr/--batch means nothing to verify/, 'an option that would do nothing';
};

my @texts = map { "warm text $_" } 1 .. 200;
my $file = spew(test_path('texts.jsonl'), join '', map { json_encode($_) . "\n" } @texts);

subtest 'warm' => sub {
	my $r = json(@warm, $file, '--model', $MODEL, '--batch', 30);
	is $r->{exit}, 0, 'done' or diag $r->{err};
	is $r->{texts}, 200, '200 texts';
	is $r->{requests}, 7, 'in 7 requests';
	is $r->{hits}, 0, 'none was there';
	is $r->{tokens}, 200 * 4, 'tokens';
	ok $r->{complete}, 'complete';
	is $openai->stats->{log}[0]{authorization}, 'Bearer sk-warm', 'with the key';
	my $calls = $openai->calls;
	is http_json($d->url . '/v1/embeddings', { input => 'warm text 77', model => $MODEL }, [ Authorization => 'Bearer sk-x' ])->{headers}{'x-cache'}, 'HIT', 'warm';
	is json(@warm, $file, '--model', $MODEL)->{hits}, 200, 'a second time: all are there';
	is $openai->calls, $calls, 'and cost nothing';
	my ($code, $out) = ctl(@warm, $file, '--model', $MODEL);
	like $out, qr/^Warm: 200 texts in .* 100\.0 % were there already, 800 tokens$/m, 'a sentence for people';
	stored(200);
};

subtest 'lines of all kinds' => sub {
	my $mixed = spew(test_path('mixed.jsonl'), join "\n",
		json_encode({ input => [ 'm1', 'm2' ], model => $MODEL }), '', '{"input":"m3"}', '"m4"', 'not json', '[1]', '{"input":[],"model":"x"}', '"m5"');
	my $r = json(@warm, $mixed, '--model', $MODEL);
	is $r->{exit}, 1, 'something was not well';
	is $r->{texts}, 5, 'the good ones went through';
	is $r->{failed_lines}, 3, 'three did not';
	like $r->{err}, qr/line 5: neither.*line 6: neither.*line 7: refused with status 400/s, 'each is named';
	ok $r->{complete}, 'and the run went on';
	$r = json(@warm, $mixed);
	is $r->{failed_lines}, 6, 'without --model lines without one are refused';
	like $r->{err}, qr/line 3: names no model/, 'by name';
	stored(205);
};

subtest 'one bad text does not take its batch along' => sub {
	my $bad = test_path('bad.jsonl');
	spew($bad, join '', (map { qq("good $_"\n) } 1 .. 64), qq(""\n));
	my $r = json(@warm, $bad, '--model', $MODEL, '--batch=65', '--parallel=1');
	is "$r->{exit} $r->{texts} $r->{failed_lines} $r->{lines}", '1 64 1 65', 'the other 64 are warm' or diag $r->{err};
	like $r->{err}, qr/^cachectl: line 65: refused with status 400: .*\n\z/, 'and it is named';
	ok $r->{complete} && !-e "$bad.progress", 'complete';
	cmp_ok $r->{requests}, '<=', 7, 'with a request for each half that is good';
	my ($code, $out) = ctl(@warm, $bad, '--model', $MODEL, '--batch=65');
	like $out, qr/^1 line was refused$/m, 'for people';

	spew($bad, join '', map { $_ % 16 == 1 ? qq(""\n) : qq("several $_"\n) } 1 .. 64);
	$r = json(@warm, $bad, '--model', $MODEL, '--batch=32', '--parallel=3');
	is "$r->{exit} $r->{texts} $r->{failed_lines} $r->{lines}", '1 60 4 64', 'several of several batches';
	is join(' ', sort { $a <=> $b } $r->{err} =~ /line (\d+): refused/g), '1 17 33 49', 'all are named';

	my $calls = $openai->calls;
	$r = json(@warm, $file, '--model', 'no-such-model', '--batch=200');
	is $openai->calls - $calls, 1, 'a model that is not there: the texts are not at fault';
	is $r->{failed_lines}, 200, 'all lines are counted';
	$calls = $openai->calls;
	my ($stopped, undef, $why) = ctl(@warm, $file, '--model', $MODEL, '--url', $d->url . '/nowhere', '--parallel=1');
	is $stopped, 69, 'a URL without embeddings is no matter of texts';
	like $why, qr/^cachectl: line 1: there are no embeddings; --url .*status 404.*stopped here$/, 'and ends the run';
	unlink "$file.progress";
	is json(@warm, $file, '--model', $MODEL, '--url', $d->url . '/')->{hits}, 200, 'a slash at the end of a URL';
	like $r->{err}, qr/lines 1 to 200: refused with status 404/, 'and named';
	stored(205 + 64 + 60);
};

subtest 'stopped in the middle of the halves' => sub {
	my $bad = spew(test_path('half.jsonl'), join '', map { $_ == 1 ? qq(""\n) : qq("half $_"\n) } 1 .. 8);
	$openai->reset;
	$openai->mode(hold => JSON::PP::true());
	my $pid = fork // die;
	if (!$pid) {
		$ENV{OPENAI_API_KEY} = 'sk-warm';
		open STDOUT, '>', test_path('half');
		open STDERR, '>', '/dev/null';
		exec eg_bin('cachectl'), 'warm', $bad, '--url', $d->url, '--parallel=1', '--batch=4', '--model', $MODEL or POSIX::_exit(127);
	}
	# Line 1 is refused by gatewayd itself; line 2 and then lines 3 and 4 are bought.
	$openai->wait(held => 1);
	$openai->release(1);
	$openai->wait(calls => 2);
	$openai->wait(held => 1);
	kill INT => $pid;
	waitpid $pid, 0;
	like slurp(test_path('half')), qr/goes on after line 2$/m, 'what was done without a gap';
	$openai->release;
	$openai->mode(hold => JSON::PP::false());
	my $r = json(@warm, $bad, '--model', $MODEL);
	is "$r->{exit} $r->{resumed_after} $r->{texts} $r->{failed_lines}", '0 2 6 0', 'the rest';
	stored(205 + 64 + 60 + 7);
};

subtest 'interrupted, and on from there' => sub {
	my $long = spew(test_path('long.jsonl'), join '', map { json_encode({ input => "long $_", model => $MODEL }) . "\n" } 1 .. 50);
	$openai->reset;
	$openai->mode(hold => JSON::PP::true());
	my $pid = fork // die;
	if (!$pid) {
		$ENV{OPENAI_API_KEY} = 'sk-warm';
		open STDOUT, '>', test_path('interrupted');
		exec eg_bin('cachectl'), 'warm', $long, '--url', $d->url, '--parallel', 4 or POSIX::_exit(127);
	}
	for my $done (4, 8) {
		$openai->wait(held => 4);
		$openai->release(4);
		$openai->wait(calls => $done + 4);
	}
	$openai->wait(held => 4);
	kill INT => $pid;
	waitpid $pid, 0;
	is $? >> 8, 130, 'says so';
	like slurp(test_path('interrupted')), qr/^Stopped.*The same command goes on after line 8$/ms, 'and where it was';
	$openai->release;
	wait_for { http('GET', $d->url . '/metrics')->{body} =~ /^gatewayd_flights 0$/m ? 1 : 0 } 'what was under way';
	my $r = json(@warm, $long);
	is $r->{exit}, 0, 'complete';
	is $r->{resumed_after}, 8, 'eight lines were done';
	is $r->{texts}, 42, 'the others are sent';
	is $openai->calls, 50, 'and nothing is bought twice';
	ok !-e "$long.progress", 'no trace is left';
	is json(@warm, $long, '--restart')->{texts}, 50, '--restart: all';
	stored(386);
};

subtest 'killed, and on from there' => sub {
	my $file = spew(test_path('killed.jsonl'), join '', map { json_encode({ input => "killed $_", model => $MODEL }) . "\n" } 1 .. 40);
	$openai->reset;
	$openai->mode(hold => JSON::PP::true());
	my $pid = fork // die;
	if (!$pid) {
		$ENV{OPENAI_API_KEY} = 'sk-warm';
		open STDOUT, '>', test_path('killed');
		exec eg_bin('cachectl'), 'warm', $file, '--url', $d->url, '--parallel', 4 or POSIX::_exit(127);
	}
	$openai->wait(held => 4);
	$openai->release(4);
	$openai->wait(calls => 8);
	$openai->wait(held => 4);
	kill KILL => $pid;
	waitpid $pid, 0;
	$openai->release;
	wait_for { http('GET', $d->url . '/metrics')->{body} =~ /^gatewayd_flights 0$/m ? 1 : 0 } 'what was under way';
	$openai->mode(hold => JSON::PP::false());
	my $r = json(@warm, $file);
	is "$r->{exit} $r->{texts}", '0 40', 'the whole file is there';
	is $openai->calls, 40, 'and nothing was bought twice';
	stored(426);
};

subtest 'a gateway that is not there' => sub {
	my $closed = listen_tcp();
	my $port = $closed->sockport;
	close $closed;
	is +(ctl('stats', '--url', "http://127.0.0.1:$port"))[0], 69, 'stats: 69';
	my $d2 = daemon('gatewayd', http => 1, env => { OPENAI_BASE_URL => $openai->base, STORE => 'none' });
	my ($code, $out, $err) = ctl({ OPENAI_API_KEY => 'sk-bad' }, 'warm', '--url', $d2->url, $file, '--model', $MODEL);
	is $code, 69, 'warm with a bad key: stopped at once';
	like $err, qr/status 401.*stopped here/, 'with a reason';
	unlink "$file.progress";
};

subtest 'stats' => sub {
	http('GET', $d->url . '/v1/models', [ Authorization => 'Bearer sk-warm', Cookie => 'a=b' ]);
	my ($code, $out) = ctl('stats', '--url', $d->url);
	is $code, 0, 'done';
	like $out, qr/^Requests .* 0\.0 % stale.* passed on/m, 'every result has its name';
	like $out, qr/^Requests .*% hit.*^Embeddings .*% bought.*^\Q$MODEL\E .*^Saved: \$/ms, 'for people';
	my $r = json('stats', '--url', $d->url);
	my $page = http('GET', $d->url . '/metrics')->{body};
	my %by;
	$by{$1} += $2 while $page =~ /^gatewayd_requests_total\{result="(\w+)",[^}]*\} (\d+)/mg;
	is_deeply $r->{requests}, { (map { $_ => 0 } qw(hit stale partial miss coalesced pass error gone)), %by }, 'requests by result, as gatewayd says';
	cmp_ok $r->{requests}{pass}, '>=', 1, 'what is passed on is no error';
	my ($saved) = $page =~ /^saved_tokens_total\{model="\Q$MODEL\E"\} (\d+)/m;
	my ($model) = grep { $_->{model} eq $MODEL } @{ $r->{models} };
	is $model->{saved_tokens}, $saved, 'saved tokens';
	cmp_ok abs($model->{saved_dollars} - $saved * 20 / 1e6), '<', 1e-6, 'dollars, by TOKEN_PRICES';
	# Twice four answers of 3 tokens, and two of 3, came after cachectl had been interrupted, or killed: nobody got them, or, soon
	# after, nobody knew.
	my $unsaved = $model->{paid_tokens} - ($model->{tokens} - $saved);
	ok $unsaved >= 0 && $unsaved <= 30, "what was not saved was paid ($unsaved)";
	my $hashd = daemon('hashd', http => 1);
	my ($exit, $none, $err) = ctl('stats', '--url', $hashd->url);
	is "$exit $none", '69 ', 'of hashd: no table of zeros';
	like $err, qr/that is no gatewayd/, 'but a reason';
	$hashd->stop;
	my $fresh = daemon('gatewayd', http => 1, env => { PROVIDER => 'mock', STORE => 'none' });
	is +(ctl('stats', '--url', $fresh->url))[0], 0, 'of a gatewayd that was asked nothing yet';
	$fresh->stop;
	is +(ctl('stats', '--url', $d->url . '//'))[0], 0, 'slashes at the end';
	my $twice = json('stats', '--url', $d->url . ',' . $d->url);
	is $twice->{embeddings}{bought}, 2 * $r->{embeddings}{bought}, 'several gateways add up';
};

subtest 'verify' => sub {
	my $r = json('verify', '--store', $store);
	is $r->{exit}, 0, 'all is well' or diag $r->{err};
	is "$r->{objects} $r->{good} $r->{bad}", '426 426 0', 'every object';
	my $requests = spew(test_path('requests.jsonl'),
		json_encode({ input => [ @texts[ 0 .. 9 ] ], model => $MODEL, encoding_format => 'float' }) . "\n" . json_encode({ input => 'long 3', model => $MODEL }) . "\n");
	$r = json('verify', '--store', $store, '--requests', $requests);
	is $r->{exit}, 0, 'and under the keys of its requests';
	is $r->{requests}{present}, 11, 'eleven of them';
	spew($requests, json_encode({ input => [ 'long 3', 'nobody asked' ], model => $MODEL }) . "\nnonsense\n");
	$r = json('verify', '--store', $store, '--requests', $requests);
	is $r->{exit}, 1, 'one is missing';
	is $r->{requests}{missing}, 1, 'is counted';
	like $r->{problems}[0]{name}, qr/line 2/, 'a line that is no request, too';

	my @all = sort glob "$store/embeddings/*.json.gz";
	my $damaged = test_path('damaged');
	make_path("$damaged/embeddings");
	my $bytes = slurp($all[0]);
	my ($name, $other) = map { s{.*/}{}r } @all[ 0, 1 ];
	spew("$damaged/embeddings/$name", substr $bytes, 0, -9);
	spew("$damaged/embeddings/$other", $bytes);
	spew("$damaged/embeddings/" . 'a' x 64 . '.json.gz', Compress::Zlib::memGzip('{"data":[{"index":0,"embedding":[1,"x"]}]}'));
	spew("$damaged/notes.txt", 'not ours');
	$r = json('verify', '--store', $damaged);
	is $r->{exit}, 1, 'damage is found';
	is "$r->{objects} $r->{bad} $r->{other_files}", '3 3 1', 'all of it';
	my %problem = map { $_->{name} => $_->{problem} } @{ $r->{problems} };
	like $problem{"embeddings/$name"}, qr/gzip/, 'a short one';
	like $problem{"embeddings/$other"}, qr/key/, 'one under a wrong name';
	like $problem{ 'embeddings/' . 'a' x 64 . '.json.gz' }, qr/./, 'one with a wrong vector: ' . $problem{ 'embeddings/' . 'a' x 64 . '.json.gz' };
	is +(ctl('verify', '--store', test_path('nowhere')))[0], 69, 'no such directory';
};

subtest 'export' => sub {
	my $copy = test_path('copy');
	my $r = json('export', $copy, '--store', $store);
	is $r->{exit}, 0, 'done' or diag $r->{err};
	is $r->{copied}, 426, 'all objects';
	is scalar(grep { slurp($_) ne slurp($_ =~ s{^\Q$store\E}{$copy}r) } glob "$store/embeddings/*"), 0, 'byte for byte';
	is json('export', $copy, '--store', $store)->{there_already}, 426, 'a second time: nothing to do';
	$r = json('export', test_path('other'), '--store', $store, '--model', 'another');
	is "$r->{exit} $r->{copied} $r->{left_out}", '0 0 426', 'one model alone';
	my ($code, $out) = ctl('export', '-', '--store', $store);
	my @lines = map { json_decode($_) } split /\n/, $out;
	is scalar @lines, 426, 'as lines';
	is_deeply [ sort keys %{ $lines[0] } ], [ qw(dimensions embedding key model parameters stored_ms total_tokens) ], 'with all that is known';
	is $lines[0]{model}, $MODEL, 'model';
};

subtest 'import' => sub {
	my @requests = ({ input => 'of old', model => $MODEL, dimensions => 8 }, { input => [ 'o1', 'o2', 'o3' ], model => $MODEL, dimensions => 8, user => 'u' });
	my $lines = '';
	for my $request (@requests) {
		my $answer = http_json($openai->base . '/embeddings', $request, [ Authorization => 'Bearer sk-x' ])->{json};
		$lines .= json_encode({ body => json_encode($request), answer => $answer }) . "\n";
	}
	my ($old, $new, $apart) = map { test_path($_) } qw(old new apart);
	spew(test_path('lines'), $lines);
	my @names = `python3 '@{[ eg_root() ]}/tests/lib/legacy_store' hashed '$old' < '@{[ test_path('lines') ]}'`;
	is scalar @names, 2, 'what the Python gateway left';
	my ($flat, $flat_new) = map { test_path($_) } qw(flat flat-new);
	system "python3 '@{[ eg_root() ]}/tests/lib/legacy_store' embeddings '$flat' < '@{[ test_path('lines') ]}' >/dev/null";
	my $r = json('import', $flat, '--store', $flat_new);
	is "$r->{exit} $r->{copied}", '0 2', 'its other layout, copied';
	$r = json('verify', '--store', $old);
	is "$r->{exit} $r->{legacy} $r->{embeddings}", '0 2 4', 'verify knows it';
	$r = json('import', $old, '--store', $new);
	is "$r->{exit} $r->{copied}", '0 2', 'copied';
	my $bodies = spew(test_path('bodies.jsonl'), join '', map { json_encode($_) . "\n" } @requests);
	$r = json('import', $old, '--store', $apart, '--requests', $bodies);
	is "$r->{exit} $r->{taken_apart} $r->{elements}", '0 2 4', 'taken apart' or diag $r->{err};
	is json('verify', '--store', $apart, '--requests', $bodies)->{requests}{present}, 4, 'and there by element';
	my $calls = $openai->calls;
	for my $case ([ $flat_new, @requests ], [ $new, @requests ], [ $apart, @requests, { input => 'o2', model => $MODEL, dimensions => 8 } ]) {
		my ($dir, @ask) = @$case;
		my $g = daemon('gatewayd', http => 1, env => { OPENAI_BASE_URL => $openai->base, OPENAI_API_KEY => 'sk-own', STORE_DIR => $dir });
		is http_json($g->url . '/v1/embeddings', $_)->{headers}{'x-cache'}, 'HIT', 'served' for @ask;
		$g->stop;
	}
	is $openai->calls, $calls, 'without a purchase';
};

done_testing;
