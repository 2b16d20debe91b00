package Tls;

# Certificates made by the test itself, in its directory: NAME.pem and NAME.key.
#
#   Tls::authority('ca');                                       # skips the test when there is no openssl
#   Tls::certificate('server', 'ca', 'DNS:redis.test,IP:127.0.0.1');
#   Tls::server_args($port, 'server', 'no')                     # of redis-server; the last: tls-auth-clients

use strict;
use warnings;
use EG::Test;

sub openssl
{
	my $log = test_path('openssl.log');
	system("openssl @_ >> $log 2>&1") == 0 or die "openssl @_: " . slurp($log);
	return;
}

sub authority
{
	my ($name) = @_;
	my $dir = test_dir();
	plan(skip_all => 'no openssl program here') if !grep { -x "$_/openssl" } split /:/, $ENV{PATH};
	openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $dir/$name.key -out $dir/$name.pem -days 2 -subj /CN=$name");
	return;
}

sub certificate
{
	my ($name, $by, $san) = @_;
	my $dir = test_dir();
	openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $dir/$name.key -out $dir/$name.csr -subj /CN=$name");
	spew("$dir/$name.ext", "subjectAltName=$san\n");
	openssl("x509 -req -in $dir/$name.csr -CA $dir/$by.pem -CAkey $dir/$by.key -CAcreateserial -days 2 -extfile $dir/$name.ext -out $dir/$name.pem");
	return;
}

sub server_args
{
	my ($port, $name, $auth) = @_;
	my $dir = test_dir();
	return ('--tls-port', $port, '--tls-cert-file', "$dir/$name.pem", '--tls-key-file', "$dir/$name.key",
		'--tls-ca-cert-file', "$dir/ca.pem", '--tls-auth-clients', $auth);
}

1;
