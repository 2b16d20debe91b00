#!/usr/bin/env perl

# The real pod under a real Prometheus with the configuration of manifests/monitoring: every query of the rules and of the
# dashboard finds data, no rule fails, and an alert goes off when something is down.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin, "$FindBin::Bin/../supervisor";
use EG::Test;
use Monitoring;
use Pod;

my $prometheus = (grep { -x } map { "$_/prometheus" } split /:/, $ENV{PATH})[0];
plan skip_all => 'prometheus is not installed (mk/deps test)' if !$prometheus;
plan skip_all => 'redis-server is not installed' if !grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

# gatewayd's ports stand in a row.
my ($prefix) = grep {
	my $try = $_;
	9 == grep { IO::Socket::INET->new(LocalAddr => "127.0.0.1:$try$_", Listen => 1, ReuseAddr => 1) } 0, 1, 3 .. 9
} map { 3100 + ($$ + $_ * 37) % 1900 } 0 .. 200;
die 'no free ports' if !$prefix;
my %port = (front => "${prefix}9", merger => "${prefix}8", prometheus => "${prefix}4", broadcaster => "${prefix}5");

my $openai = fake_openai();
my $dir = test_dir();
mkdir "$dir/$_" or die for qw(log cache);
my $pod = Pod->new('; not used: the last --config counts', args => [ '--config=' . eg_root() . '/manifests/local/pod.conf' ], process => { allow => qr/./ },
	env => {
		OPENAI_BASE_URL => $openai->base, OPENAI_API_KEY => 'sk-pod', PORT => $port{front}, POD_GATEWAYD_PORTS => $prefix, MERGER_PORT => $port{merger},
		POD_REDIS_PORT => "${prefix}6", POD_REDIS_MONITOR_PORT => "${prefix}7", POD_BROADCASTER_PORT => $port{broadcaster}, PURGE_TOKEN => 'secret', MAX_RETRIES => 1,
		REDIS_DIR => "$dir/redis", STATE_DIR => $dir, BIN_DIR => eg_bin(), LOG_DIR => "$dir/log", STORE_DIR => "$dir/cache", PATH => $ENV{PATH},
	});
my ($code, $out) = $pod->ctl('status', '--wait=' . $EG::Test::TIMEOUT);
is $code, 0, 'the pod is up' or BAIL_OUT($out);

# As it is, but for its address and its pace.
for my $file (qw(recording.yml alerts.yml prometheus.yml)) {
	my $text = slurp("$Monitoring::DIR/$file");
	$text =~ s/127\.0\.0\.1:8083/127.0.0.1:$port{merger}/;
	$text =~ s/(scrape_interval|scrape_timeout|evaluation_interval): \d+s/$1: 1s/g;
	spew(test_path($file), $text);
}
my $server = process('prometheus', [ $prometheus, '--config.file=' . test_path('prometheus.yml'), '--storage.tsdb.path=' . test_path('tsdb'),
	"--web.listen-address=127.0.0.1:$port{prometheus}", '--log.level=warn' ], ready => 0, exit => qr/^(?:0|15)$/, allow => qr/./);
my $api = "http://127.0.0.1:$port{prometheus}/api/v1";
sub query
{
	my ($query) = @_;
	my $escaped = $query =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/egr;
	my $r = eval { http('GET', "$api/query?query=$escaped") } or return [];
	die "$query: $r->{body}\n" if $r->{status} == 400 || $r->{status} == 422;
	return $r->{status} == 200 ? json_decode($r->{body})->{data}{result} : [];
}

# Something of everything: hits, misses, failures, purges, Redis.
my $i = 0;
my $redis = IO::Socket::INET->new(PeerAddr => "127.0.0.1:${prefix}6") or die "redisproxy: $!";
sub traffic
{
	my $url = "http://127.0.0.1:$port{front}/v1/embeddings";
	my @key = (Authorization => 'Bearer sk-pod');
	http_json($url, { model => 'text-embedding-3-small', input => 'text ' . ($_ < 5 ? $_ : $i++) }, \@key) for 0 .. 9;
	$openai->mode(fault => 'status', status => 500, times => 2);
	http_json($url, { model => 'text-embedding-3-small', input => 'text ' . $i++ }, \@key);
	http('PURGE', "http://127.0.0.1:${prefix}0/v1/embeddings", [ Authorization => 'Bearer secret' ]);
	http('PURGE', "http://127.0.0.1:$port{broadcaster}/v1/embeddings", [ Authorization => 'Bearer secret' ]);
	syswrite $redis, "*2\r\n\$3\r\nGET\r\n\$1\r\na\r\n";
	sysread $redis, my $reply, 100;
	return;
}

# No such label value before there is something to say.
my %may_be_empty = map { ($_ => 1) } ();
subtest 'queries' => sub {
	my @wanted = (map({ [ $_->{record}, $_->{record} ] } grep { $_->{record} } Monitoring::rules()), Monitoring::queries());
	my @missing;
	eval {
		wait_for {
			traffic();
			@missing = grep { !@{ query($_->[1]) } } @wanted;
			!@missing;
		} 'data for every query', 3 * $EG::Test::TIMEOUT;
	};
	is join("\n", map { "$_->[0]: $_->[1]" } @missing), '', scalar(@wanted) . ' queries find data';
	# The left side of a comparison: what an alert looks at is there.
	my @looked_at = map { my $alert = $_; map { [ $alert->{alert}, $_->[0] ] } Monitoring::selectors($alert->{expr}) } grep { $_->{alert} } Monitoring::rules();
	is join("\n", map { "@$_" } grep { !@{ query($_->[1]) } } @looked_at), '', 'and what alerts look at is there';
};

subtest 'the numbers agree' => sub {
	my $page = sub { my %sum; for (split /\n/, http('GET', "http://127.0.0.1:$port{merger}/metrics")->{body}) { $sum{$1} += $2 if /^(\w+)(?:\{[^}]*\})? (\S+)$/ } return \%sum };
	for my $name (qw(saved_tokens_total processed_tokens_total gatewayd_elements_total hashd_requests_total)) {
		my $want = $page->()->{$name};
		cmp_ok $want, '>', 0, "$name: $want";
		ok wait_for { my $r = query("sum($name)"); @$r && $r->[0]{value}[1] == $want } 'Prometheus has it too';
	}
};

subtest 'podctl top' => sub {
	my $top = sub { my ($code, $out, $err) = $pod->ctl('top', '--json'); die "$code $err" if $code; return json_decode($out)->{pod} };
	my ($first, $page, %sum) = ($top->(), http('GET', "http://127.0.0.1:$port{merger}/metrics")->{body});
	for (split /\n/, $page) { $sum{$1}{ $2 // '' } += $3 if /^(\w+)(?:\{.*?(?:source|model|scope|reason)="([^"]*)"[^}]*\}|\{[^}]*\})? (\S+)$/ }
	my $total = sub { my ($name) = @_; my $sum = 0; $sum += $_ for values %{ $sum{$name} }; return $sum };
	my %same = (requests => 'hashd_requests_total', tokens => 'processed_tokens_total', saved_tokens => 'saved_tokens_total',
		provider_calls => 'gatewayd_provider_attempts_total');
	is $first->{$_}, $total->($same{$_}), "$_: $first->{$_}" for sort keys %same;
	is $first->{"from_$_"}, $sum{gatewayd_elements_total}{$_}, "from $_" for qw(memory store);
	is $first->{purchase_failures}, $sum{gatewayd_purchase_failures_total}{provider}, 'purchases that failed by the provider\'s fault';
	is $first->{bought}, $sum{gatewayd_elements_total}{bought}, 'bought';
	# One by a broadcast and one asked of gatewayd.0 each time.
	is $first->{purges}, 2 * $total->('broadcaster_purges_total'), 'purges, each once for all instances';
	is $first->{daemons_answered}, $first->{daemons}, "all $first->{daemons} daemons";
	is_deeply $first->{breakers}, { openai => 'closed' }, 'the breaker';
	cmp_ok $first->{p99_seconds}, '>=', $first->{p50_seconds}, 'percentiles';
	cmp_ok $first->{requests_per_second}, '>', 0, 'a rate since the start';
	like +($pod->ctl('top', '--once'))[1], qr/^requests .*^hit ratio .*^saved .* tokens .*^provider .*openai breaker closed.*^redis .*^NAME /ms, 'for people';
	# One that hangs is named, and does not keep the others waiting.
	my %now = $pod->status;
	kill 'STOP', $now{'gatewayd.0'}{pid};
	my $without = eval { $top->() };
	my ($code, $text) = $pod->ctl('top', '--once');
	kill 'CONT', $now{'gatewayd.0'}{pid};
	is $without->{daemons_answered}, $first->{daemons} - 1, 'one that is stopped is left out';
	like $text, qr/^gatewayd\.0 does not answer/, 'and named';
};

subtest 'rules' => sub {
	my $groups = json_decode(http('GET', "$api/rules")->{body})->{data}{groups};
	my @rules = map { @{ $_->{rules} } } @$groups;
	is join("\n", map { "$_->{name}: $_->{lastError}" } grep { ($_->{health} // '') ne 'ok' } @rules), '', scalar(@rules) . ' rules are evaluated';
};

subtest 'a gatewayd that is stopped' => sub {
	($code, $out) = $pod->ctl('stop', 'gatewayd.1');
	is $code, 0, 'stopped' or diag $out;
	ok wait_for { my $alerts = json_decode(http('GET', "$api/alerts")->{body})->{data}{alerts};
		grep { $_->{labels}{alertname} eq 'GatewayDaemonDown' && $_->{labels}{merger_url} eq 'unix:gatewayd.1.sock' } @$alerts } 'the alert about it';
};

$server->stop;
is $pod->stop, 0, 'the pod stops';
done_testing;
