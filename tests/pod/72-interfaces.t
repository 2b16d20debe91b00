#!/usr/bin/env perl

# Rate, errors and time of every interface that a daemon serves or uses: HTTP listeners, what they refuse by themselves
# too, the journal, purges in the store, the store's size, scrapes by target.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $TOKEN = 'purge-secret';
my $openai = fake_openai();
my $pod = fake_pod();
my $d = daemon('gatewayd', http => 1, rpc => 'gatewayd.0.sock', env => { OPENAI_BASE_URL => $openai->base, STORE_DIR => test_path('store'),
	STORE_DIR_MAX_SIZE => '1GB', PURGE_TOKEN => $TOKEN, PURGE_REREAD => '100ms' });
my $broadcaster = daemon('broadcasterd', http => 1, rpc => 'broadcasterd.sock', env => { PURGE_TOKEN => $TOKEN, BROADCASTERD_TARGETS => $pod->address,
	BROADCASTERD_RETRY_INTERVAL => '20ms' });
my $merger = daemon('exportermerger', http => 1, rpc => 'exportermerger.sock',
	env => { MERGER_URLS => 'unix:gatewayd.0.sock unix:gone.sock', EXPORTERMERGER_LISTEN => '127.0.0.1:0' });

sub page { return http('GET', $_[0]->url . '/metrics')->{body} }
# On the merged page every sample says whose it is.
sub value
{
	my ($d, $series) = @_;
	my $page = page($d) =~ s/(?:,merger_url="exportermerger"|\{merger_url="exportermerger"(?:,|\}))/substr($&, -1) eq ',' ? '{' : ''/egr;
	return $page =~ /^\Q$series\E (\S+)$/m ? $1 : undef;
}

subtest 'HTTP listeners' => sub {
	my $duration = 'http_request_duration_seconds_count';
	is http('PURGE', $d->url . '/v1/models', [ Authorization => "Bearer $TOKEN" ])->{status}, 200, 'a purge of gatewayd';
	is value($d, 'http_requests_total{method="PURGE",status="200"}'), 1, 'counted';
	is value($d, "$duration\{method=\"PURGE\"}"), 1, 'and timed';
	is http('PURGE', $d->url . '/v1/models')->{status}, 403, 'one without the token';
	is value($d, 'http_requests_total{method="PURGE",status="403"}'), 1, 'counted by its status';
	for my $daemon ($d, $broadcaster, $merger) {
		my $name = $daemon->name;
		my $open = EG::HTTP->new($daemon->url);
		is $open->request('BREW', '/coffee')->{status} >= 404, 1, "$name: a method that is none";
		ok value($daemon, "$duration\{method=\"other\"}"), 'counts as other';
		is http('GET', $daemon->url . '/' . 'x' x 100_000)->{status}, 414, 'what the listener refuses by itself';
		is value($daemon, 'http_requests_total{method="GET",status="414"}') // value($daemon, 'http_requests_total{method="other",status="414"}'), 1, 'is counted';
		wait_for { value($daemon, 'http_connections') == 2 } 'connections: this one and the scrape';
		unlike page($daemon), qr/BREW/, 'nobody makes labels up';
	}
};

subtest 'the journal' => sub {
	$pod->mode(status => 500);
	is http('PURGE', $broadcaster->url . '/x')->{status}, 502, 'a purge that stays pending';
	ok value($broadcaster, 'broadcaster_journal_save_duration_seconds_count'), 'its write is timed';
	$pod->mode;
};

subtest 'the store' => sub {
	my $epochs = 'gatewayd_store_epoch_duration_seconds_count{store="dir"';
	wait_for { value($d, qq($epochs,operation="list",result="ok"})) } 'a list of purges';
	http('PURGE', $d->url . '/', [ Authorization => "Bearer $TOKEN", 'X-Purge-All' => 'true', 'X-Purge-Store' => 'true' ]);
	is value($d, qq($epochs,operation="write",result="ok"})), 1, 'one is written';
	system 'rm -rf ' . test_path('store/purges');
	spew(test_path('store/purges'), 'a file where a directory should be');
	wait_for { value($d, qq($epochs,operation="list",result="failed"})) } 'a list that fails';
	pass 'is counted';
	wait_for { defined value($d, 'gatewayd_store_bytes{store="dir"}') } 'the size of the store';
	is value($d, 'gatewayd_store_max_bytes{store="dir"}'), 1 << 30, 'its cap';
	is value($d, 'gatewayd_store_janitor_errors_total{store="dir"}'), 0, 'no trouble with it';
};

subtest 'scrapes' => sub {
	page($merger) for my @times = 1 .. 3;
	my $page = page($merger);
	my %scrapes = $page =~ /^merger_scrapes_total\{merger_url="([^"]+)"\} (\d+)/mg;
	my %failures = $page =~ /^merger_scrape_failures_total\{merger_url="([^"]+)",reason="connect"\} (\d+)/mg;
	cmp_ok $scrapes{'unix:gatewayd.0.sock'}, '>=', 3, 'of one that is there';
	cmp_ok $scrapes{'unix:gone.sock'}, '>=', 3, 'of one that is not';
	is $failures{'unix:gone.sock'}, $scrapes{'unix:gone.sock'}, 'each of which failed';
};

done_testing;
