#!/usr/bin/env perl

# Every line in the log that is about a request or a purge has its trace: all lines of the daemons that serve them, as
# the sources have them. One without a trace has to be in this list, with what it is about instead.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my %about = (
	'the daemon itself' => [ <<'' =~ /^\t*(\S+: .*)$/mg ],
		common/daemon.c: stopping: %s
		common/daemon.c: starting
		common/daemon.c: listening
		common/daemon.c: the grace period is over: stopping with work left
		common/daemon.c: state_names[state]
		common/daemon_options.c: %s
		common/daemon_options.c: settings were not read again: out of memory
		common/daemon_options.c: settings were not read again: %s
		common/daemon_options.c: settings were not read again: %s
		common/daemon_options.c: changed, but only read at the start: %s
		common/daemon_options.c: settings were read again
		common/daemon_rpc.c: log level changes
		common/loop.c: loop: a long turn
		common/listen.c: inherited descriptor %d (\"%.*s\") is not a listening socket: left alone
		common/listen.c: LISTEN_FDS is %ld: only %d sockets are looked at
		common/listen.c: inherited socket \"%s\" has no use here: closed
		gatewayd/parts.c: provider: mock: embeddings are made up here, not bought
		gatewayd/parts.c: client keys: %zu
		gatewayd/parts.c: CLIENT_KEYS_FILE not reloaded: %s
		gatewayd/parts.c: client keys: %zu
		broadcasterd/front.c: whoever reaches %s can purge: BROADCASTERD_TOKEN is not set

	'a connection, before or apart from its requests' => [ <<'' =~ /^\t*(\S+: .*)$/mg ],
		common/http_server.c: http: cannot listen on descriptor %d again
		common/http_server.c: http: cannot accept a connection: %s
		common/http_server.c: http: no memory for a connection from %s
		common/rpc_server.c: rpc: cannot accept: %s
		common/rpc_server.c: rpc: connection closed
		common/rpc_server.c: rpc: peer refused
		common/rpc_client.c: rpc: connection closed, its peer broke the protocol
		common/rpc_client.c: rpc: %s: %s
		gatewayd/lease.c: rpc: release: %s
		gatewayd/lease.c: rpc: attach: %s

	'another daemon, which many requests use: each that suffers has a line of its own' => [ <<'' =~ /^\t*(\S+: .*)$/mg ],
		gatewayd/peers.c: peer %s: %s
		gatewayd/peers.c: peer %s: is back
		hashd/backend.c: gatewayd changed state
		hashd/backend.c: %s: bad answer to a ping: %s
		hashd/backend.c: %s: bad answer to attach: %s
		hashd/window.c: %s: its arena is not what it says
		hashd/window.c: %s: cannot map its arena: %s

	'the store as a whole, at times of its own' => [ <<'' =~ /^\t*(\S+: .*)$/mg ],
		gatewayd/purge_epochs.c: purges of the store cannot be read: %s
		gatewayd/store.c: embeddings that were not stored are lost
		gatewayd/store_janitor.c: the store's janitor could not do its work: %s
		gatewayd/store_janitor.c: the store was over its size

	'the file with all purges that are pending' => [ <<'' =~ /^\t*(\S+: .*)$/mg ],
		broadcasterd/keeper.c: pending purges are not saved: out of memory
		broadcasterd/journal_file.c: pending purges would not outlive this process: cannot %s %s: %s
		broadcasterd/journal_file.c: pending purges are in %s again
		broadcasterd/journal_file.c: cannot read %s: %s
		broadcasterd/journal_file.c: %s is no journal of pending purges: put aside as %s
		broadcasterd/journal_file.c: cannot make %s: %s
		broadcasterd/redelivery.c: the journal of pending purges ends in the middle: what was read is kept
		broadcasterd/redelivery.c: %zu pending purges from the journal

	'the collector' => [ <<'' =~ /^\t*(\S+: .*)$/mg ],
		common/otlp.c: sentence
		common/otlp.c: traces are exported
		common/otlp_metrics.c: metrics cannot be exported

	'a broken promise of our own to whoever serves' => [ <<'' =~ /^\t*(\S+: .*)$/mg ],
		common/rpc_request.c: rpc: answer to %s is %zu bytes, over the limit

);

# The arguments of a call, from behind its opening parenthesis.
sub arguments
{
	my ($text) = @_;
	my ($depth, $i, @arguments) = (0, 0, '');
	while ($text =~ /\G("(?:[^"\\]|\\.)*"|.)/gs) {
		my $piece = $1;
		last if $piece eq ')' && !$depth;
		$depth++ if $piece =~ /^[({]$/;
		$depth-- if $piece =~ /^[)}]$/;
		if ($piece eq ',' && !$depth) {
			push @arguments, '';
			next;
		}
		$arguments[-1] .= $piece if $piece !~ /^\s$/ || $arguments[-1] ne '';
	}
	return @arguments;
}

sub sentence
{
	my ($argument) = @_;
	my @pieces = $argument =~ /"((?:[^"\\]|\\.)*)"/g;
	return @pieces ? join '', @pieces : $argument;
}

my $root = eg_root();
my (@bare, $traced);
for my $path (glob "$root/{common,gatewayd,hashd,broadcasterd}/*.c") {
	my ($file) = $path =~ m{^\Q$root\E/(.*)};
	next if $file =~ m{^common/log|^gatewayd/cachectl};
	my $source = slurp($path);
	while ($source =~ /\blog_(debug|info|warn|error|fields|event|at)\(/g) {
		my ($how, @arguments) = ($1, arguments(substr $source, pos $source));
		if ($how !~ /^(?:fields|event|at)$/) {
			push @bare, "$file: " . sentence($arguments[0]);
		} elsif ($how ne 'fields') {
			push @bare, "$file: log_$how() is not for here";
		} elsif ($arguments[1] eq 'NULL') {
			push @bare, "$file: " . sentence($arguments[2]);
		} else {
			$traced++;
		}
	}
}
is_deeply [ sort @bare ], [ sort map { @$_ } values %about ], 'only these lines have no trace' or do {
	my %known;
	$known{$_}++ for map { @$_ } values %about;
	diag "not in the list: $_" for grep { !$known{$_}-- } @bare;
};
cmp_ok $traced, '>', 30, "$traced lines have one";

# ---- And they have it while they run. ----

my $TOKEN = 'purge-secret';
my $n = 0;
sub traceparent { return sprintf '00-%031x1-00000000000000c1-01', ++$n }
# The bodies of the log's lines of this trace, waited for.
sub wait_line
{
	my ($daemon, $traceparent, $re) = @_;
	my ($id) = $traceparent =~ /^00-(\w+)/;
	wait_for { grep { ($_->{traceid} // '') eq $id && $_->{body} =~ $re } $daemon->log_lines } "$re of the trace in the log of $daemon->{name}", 10;
	return pass(($re =~ s/^\(\?\^:(.*)\)$/$1/r) . ": a line of its trace");
}

my $openai = fake_openai();
my $ollama = fake_ollama();

subtest 'purges' => sub {
	my ($one, $other) = map {
		daemon('gatewayd', http => 1, rpc => "gatewayd.$_.sock", env => { OPENAI_BASE_URL => $openai->base, STORE_DIR => test_path('store'),
			PURGE_TOKEN => $_ ? 'another' : $TOKEN, GATEWAYD_INSTANCE => $_, GATEWAYD_INSTANCES => 2, PURGE_REREAD => '100ms' })
	} 0, 1;
	my $t = traceparent();
	my @headers = (Authorization => "Bearer $TOKEN", Traceparent => $t);
	is http('PURGE', $one->url . '/', [ @headers, 'X-Purge-All' => 'true' ])->{status}, 502, 'another token: an instance refuses';
	wait_line($one, $t, qr/^purge$/);
	wait_line($one, $t, qr/another instance of the pod failed/);
	wait_line($other, $t, qr/a purge was refused/);
	$t = $headers[3] = traceparent();
	spew(test_path('store/purges'), '') if !-d test_path('store/purges');
	is http('PURGE', $one->url . '/', [ @headers, 'X-Purge-All' => 'true', 'X-Purge-Store' => 'true' ])->{status}, 502, 'the store cannot be written';
	wait_line($one, $t, qr/purge: the store failed/);
	unlink test_path('store/purges');
	http('PURGE', $one->url . '/', [ @headers, 'X-Purge-All' => 'true', 'X-Purge-Store' => 'true' ]);
	my $line = wait_for { (grep { $_->{body} eq 'purge' && $_->{by} eq 'store' } $other->log_lines)[0] } 'the other to learn it from the store';
	like $line->{traceid}, qr/^(?!0{32})[0-9a-f]{32}$/, 'a purge read from the store has a trace of its own';
	$_->stop for $one, $other;
};

subtest 'purges by broadcasterd' => sub {
	my $pod = fake_pod();
	my %env = (PURGE_TOKEN => $TOKEN, BROADCASTERD_TARGETS => $pod->address, BROADCASTERD_RETRY_INTERVAL => '20ms', BROADCASTERD_LOCAL => 'off',
		LOG_LEVEL => 'debug');
	my $t = traceparent();
	my $d = daemon('broadcasterd', http => 1, rpc => 'broadcasterd.sock', env => \%env);
	$pod->mode(status => 500);
	is http('PURGE', $d->url . '/x', [ Traceparent => $t ])->{status}, 502, 'a target that fails';
	wait_line($d, $t, qr/target not purged/);
	wait_line($d, $t, qr/pending purge told/);
	$d->restart;
	$pod->mode;
	wait_line($d, $t, qr/pending purge ended/);
	$d->restart(env => { %env, TARGET_SERVICE => 'nowhere.invalid', TARGET_PORT => 1 });
	$t = traceparent();
	is http('PURGE', $d->url . '/x', [ Traceparent => $t ])->{status}, 502, 'a service that cannot be found';
	wait_line($d, $t, qr/discovery failed|no pods found/);
};

subtest 'requests' => sub {
	my $d = daemon('gatewayd', http => 1, rpc => 'gatewayd.7.sock', env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', MAX_RETRIES => 0 });
	my $t = traceparent();
	$openai->mode(headers => { 'Surrogate-Key' => 'x' x 300 });
	http('GET', $d->url . '/v1/models', [ Authorization => 'Bearer sk-good', Traceparent => $t ]);
	wait_line($d, $t, qr/is not kept/);
	$openai->mode;
	$d->restart(env => { STORE => 'none', PROVIDER => 'ollama', OLLAMA_BASE_URL => $ollama->url, OLLAMA_MAX_RETRIES => 0 });
	$t = traceparent();
	is http_json($d->url . '/v1/embeddings', { model => 'all-minilm', input => 'x' }, [ Traceparent => $t ])->{status}, 503, 'a model to be pulled';
	wait_line($d, $t, qr/pulling a model/);
	wait_line($d, $t, qr/pulled a model/);
	my $h = daemon('hashd', http => 1, rpc => 'hashd.sock', ready => 0, env => { HASHD_BACKEND_WAIT => '10ms', RUN_DIR => test_path('empty') });
	wait_for { eval { http('GET', $h->url . '/healthz')->{status} == 200 } } 'hashd';
	for my $case ([ 'POST', '/v1/embeddings', qr/request failed/ ], [ 'PURGE', '/', qr/^request$/ ]) {
		$t = traceparent();
		http($case->[0], $h->url . $case->[1], [ Traceparent => $t ], '{}');
		wait_line($h, $t, $case->[2]);
	}
	$t = traceparent();
	http('GET', $h->url . '/' . ('x' x 100_000), [ Traceparent => $t ]);
	my $line = wait_for { (grep { ($_->{status} // 0) == 414 || ($_->{status} // 0) == 431 } $h->log_lines)[0] } 'a line of what is no request';
	like $line->{traceid}, qr/^[0-9a-f]{32}$/, 'has a trace too';
};

done_testing;
