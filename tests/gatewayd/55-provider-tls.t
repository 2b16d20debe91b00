#!/usr/bin/env perl

# The provider over TLS: HTTP/2, an authority of one's own, proxy variables.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my ($node, $openssl) = map { my $name = $_; (grep { -x } map { "$_/$name" } split /:/, $ENV{PATH})[0] } qw(node openssl);
plan skip_all => 'needs node and openssl' if !$node || !$openssl;
delete $ENV{$_} for map { ($_, uc) } qw(http_proxy https_proxy all_proxy no_proxy);

my ($cert, $key) = (test_path('cert.pem'), test_path('key.pem'));
system("$openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
	. " -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout $key -out $cert 2>" . test_path('openssl.log')) == 0
	or die slurp(test_path('openssl.log'));

my $out = test_path('peer.out');
my $pid = fork // die;
if (!$pid) {
	open STDOUT, '>', $out or die;
	exec $node, eg_root() . '/tests/lib/node/tls_openai.mjs', $cert, $key or die;
}
END { if ($pid) { my $status = $?; kill 'TERM', $pid; waitpid $pid, 0; $? = $status } }
my $ports = json_decode(wait_for { -e $out && slurp($out) =~ /^(\{.*\})\n/ ? $1 : undef } 'the peer');
my ($url, $proxy) = ("https://127.0.0.1:$ports->{server}/v1", "http://127.0.0.1:$ports->{proxy}");
my $seen = 0;
sub news { my @lines = map { json_decode($_) } grep { length } split /\n/, slurp($out); my @new = @lines[ $seen + 1 .. $#lines ]; $seen = $#lines; return @new }

my $gateways = 0;
sub gateway
{
	my (%env) = @_;
	return daemon('gatewayd', http => 1, rpc => 'gatewayd.' . $gateways++ . '.sock', env => { STORE => 'none', MAX_RETRIES => 0,
		OPENAI_BASE_URL => $url, PROVIDER_CA_FILE => $cert, %env });
}
sub ask
{
	my ($d, @input) = @_;
	return http_json($d->url . '/v1/embeddings', { model => 'h2', input => \@input, encoding_format => 'float' }, [ Authorization => 'Bearer sk-good' ]);
}

subtest 'HTTP/2' => sub {
	my $d = gateway();
	my $r = ask($d, 'a', 'b');
	is $r->{status}, 200, 'served' or diag $r->{body};
	is_deeply $r->{json}{data}[1]{embedding}, [ 1, 0.5, 1 ], 'its vector';
	ask($d, "more $_") for 1 .. 3;
	my @calls = news();
	is scalar @calls, 4, 'four calls';
	is join(' ', map { $_->{http} } @calls), '2.0 2.0 2.0 2.0', 'over HTTP/2';
	is $calls[3]{connection}, $calls[0]{connection}, 'on one connection';
	is $calls[0]{path}, '/v1/embeddings', 'the path';
};

subtest 'a certificate that nobody vouches for' => sub {
	my $r = ask(gateway(PROVIDER_CA_FILE => ''), 'c');
	is $r->{status}, 503, 'refused';
	is $r->{json}{error}{code}, 'provider_unreachable', 'says why';
	is scalar(news()), 0, 'and nothing was sent';
};

subtest 'proxy variables' => sub {
	my $r = ask(gateway(https_proxy => $proxy), 'd');
	is $r->{status}, 200, 'served' or diag $r->{body};
	my ($connect, $call) = news();
	is $connect->{proxy}, 'connect', 'by CONNECT';
	is $connect->{url}, "127.0.0.1:$ports->{server}", 'to the provider';
	is $call->{http}, '2.0', 'HTTP/2 within';

	is ask(gateway(https_proxy => $proxy, no_proxy => '127.0.0.1'), 'e')->{status}, 200, 'no_proxy';
	is join(' ', map { $_->{proxy} // 'direct' } news()), 'direct', 'goes around it';

	my $openai = fake_openai();
	is ask(gateway(OPENAI_BASE_URL => $openai->base, http_proxy => $proxy), 'f')->{status}, 404, 'a plain URL: the provider\'s answer';
	is((news())[0]{url}, $openai->base . '/embeddings', 'asked of the proxy');
	is $openai->calls, 1, 'and passed on';

	my $socket = listen_tcp();
	my $down = 'http://127.0.0.1:' . $socket->sockport;
	close $socket;
	is ask(gateway(https_proxy => $down), 'g')->{status}, 503, 'a proxy that is down';
};

done_testing;
