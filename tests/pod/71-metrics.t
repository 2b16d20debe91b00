#!/usr/bin/env perl

# The metrics of every daemon, after work of every kind: promtool finds nothing on their own pages nor on the merged one,
# every family that a page shows is documented, and nobody can make labels up.

use FindBin;
use lib "$FindBin::Bin/../lib", "$FindBin::Bin/../supervisor", "$FindBin::Bin/../redisproxy";
use EG::Test;
use EG::Pod;
use Pod;
use Redis;

my $promtool = (grep { -x } map { "$_/promtool" } split /:/, $ENV{PATH})[0];
plan(skip_all => 'promtool (package prometheus) is not installed') if !$promtool;

my $M = 'text-embedding-3-small';
my $pod = EG::Pod->new;
my $redis = Redis::server();
my $proxy = Redis::proxy($redis);
my $super = Pod->new("[program:idle]\ncommand=/bin/sleep 1000\n");
my $broadcaster = daemon('broadcasterd', http => 1, rpc => 'broadcasterd.sock',
	env => { BROADCASTERD_TARGETS => $pod->gatewayd(0)->address, PURGE_TOKEN => 'token', BROADCASTERD_JOURNAL => 'none' });
my $merger = daemon('exportermerger', http => 1, rpc => 'exportermerger.sock', env => { MERGER_URLS => join ' ',
	(map { $_->url . '/metrics' } $pod->hashd), map { "unix:$_" } $pod->hashd->rpc_path, (map { $_->rpc_path } $pod->gatewayds),
	$proxy->rpc_path, $super->path('supervisor.sock'), test_path('broadcasterd.sock'), test_path('exportermerger.sock') });

# Work: bought, hit, from the store, refused, purged, a dead provider.
$pod->embed([ map { "text $_" } 1 .. 8 ]);
$pod->embed('text 1') for my @times = 1 .. 3;
$pod->restart;
$pod->embed([ map { "text $_" } 1 .. 8 ]);
$pod->embed('not known', model => "made-up-$_") for my @models = 1 .. 5;
$pod->openai->mode(fault => 'status', status => 503, times => 1);
$pod->embed('is asked for twice');
Redis->new($proxy->redis_port)->cmd('SET', 'a', 1);
Redis->new($proxy->redis_port)->cmd('NOSUCHCOMMAND');
http('PURGE', $broadcaster->url . '/v1/models');
http('GET', $pod->url . "/nowhere/$_") for my @paths = 1 .. 3;
$pod->hashd->rpc->call('hash', [ mp_bin('x') ]);
eval { $pod->hashd->rpc->call('no_such_method', []) };

sub lint
{
	my ($name, $page) = @_;
	my $file = spew(test_path('page'), $page);
	is qx{$promtool check metrics < $file 2>&1}, '', "promtool has nothing to say to $name";
	return;
}

my %pages = (map { ($_->name => http('GET', $_->url . '/metrics')->{body}) } $pod->hashd, ($pod->gatewayds)[0], $broadcaster, $merger);
lint($_, $pages{$_}) for sort keys %pages;
my $merged = http('GET', $merger->url . '/metrics')->{body};
is scalar(() = $merged =~ /^merger_up\{[^}]*\} 1$/mg), 8, 'all are on the merged page' or diag join "\n", $merged =~ /^(merger_up.*)$/mg;
lint('the merged one', $merged);

my %documented = map { /^\| `(\w+)`/ ? ($1 => 1) : () } split /\n/, slurp(eg_root() . '/docs/METRICS.md');
my @unknown = grep { !$documented{$_} } $merged =~ /^# TYPE (\w+) /mg;
is "@unknown", '', 'every family is in docs/METRICS.md';

# A sample with these labels, and what it says.
my @samples = map { /^(\w+)(?:\{(.*)\})? (\S+)$/ ? { name => $1, labels => $2 // '', value => $3 } : () } split /\n/, $merged;
sub has
{
	my ($name, %label) = @_;
	my ($found) = grep { my $s = $_; $s->{name} eq $name && !grep { $s->{labels} !~ /(?:^|,)$_="\Q$label{$_}\E"/ } keys %label } @samples;
	ok $found, join ' ', $name, map { "$_=$label{$_}" } sort keys %label;
	return $found;
}

# What dashboards of the replaced systems ask for.
for my $kept (
	[ 'processed_tokens_total', model => $M ],
	[ 'redis_commands_total', cmd => 'set' ],
	[ 'tcp_connections' ],
	[ 'tcp_idle_connections' ],
	[ 'openai_requests_total', model => $M, status => '200' ],
	[ 'openai_requests_total', status => '503' ],
	[ 'openai_tokens_used_total', model => $M, type => 'prompt' ],
	[ 'circuit_breaker_state', service => 'openai' ],
	[ 'saved_tokens_total', model => $M ],
	[ 'saved_dollars_total', model => $M ]) {
	has(@$kept);
}

# Rate, errors and duration of each interface.
for my $seen (
	[ 'hashd_requests_total', status => '404' ],
	[ 'hashd_request_duration_seconds_count' ],
	[ 'gatewayd_requests_total' ],
	[ 'gatewayd_request_duration_seconds_count' ],
	[ 'rpc_requests_total', method => 'request', code => 'ok' ],
	[ 'rpc_requests_total', method => 'hash', code => 'ok' ],
	[ 'rpc_requests_total', method => 'other', code => 'no_method' ],
	[ 'rpc_request_duration_seconds_count', method => 'request' ],
	[ 'gatewayd_provider_request_duration_seconds_count', service => 'openai', status => '503' ],
	[ 'gatewayd_fetch_duration_seconds_count', outcome => 'done' ],
	[ 'gatewayd_store_look_up_duration_seconds_count', store => 'dir', result => 'hit' ],
	[ 'gatewayd_store_put_duration_seconds_count', store => 'dir', result => 'stored' ],
	[ 'redisproxy_command_duration_seconds_count' ],
	[ 'merger_scrape_duration_seconds' ],
	[ 'loop_lag_seconds_count' ],
	[ 'build_info' ],
	[ 'trace_spans_total' ]) {
	has(@$seen);
}

ok $merged !~ /made-up/, 'a model that no provider knows is no label';
cmp_ok has('openai_requests_total', model => 'other', status => '404')->{value}, '<=', 5, 'it is "other"';
ok $merged !~ /nowhere|nosuchcommand|no_such_method/i, 'nor is a path, a command or a method';

done_testing;
